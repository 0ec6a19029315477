//! Moments as the API writes them.

use jiff::Timestamp;
use kiln_store::model::Moment;

/// `2026-11-21T06:00:00Z`: whole seconds, as builds.sr.ht's clients read it.
pub(crate) fn written(moment: Moment) -> String {
    Timestamp::from_microsecond(moment.0)
        .unwrap_or_default()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

/// A duration as Go writes it, in which builds.sr.ht has its time-out: `45m0s`.
pub(crate) fn go_duration(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_whole_seconds_of_utc() {
        assert_eq!(written(Moment(1_500_000)), "1970-01-01T00:00:01Z");
    }

    #[test]
    fn a_duration_is_written_as_go_does() {
        assert_eq!(go_duration(2700), "45m0s");
        assert_eq!(go_duration(7205), "2h0m5s");
        assert_eq!(go_duration(9), "9s");
    }
}
