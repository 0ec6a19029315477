//! The farm's own lines in logs.

use crate::job::JobStatus;

/// What begins a line that is not the job's own.
pub const MARK: &str = "[kiln]";

/// The last line of a job, or of an attempt at it after which the job waits again: that it
/// ended, and why. One line, whatever the reason has in it.
#[must_use]
pub fn last(status: JobStatus, reason: &str) -> String {
    let reason = reason.replace(char::is_control, " ");
    if status.is_terminal() {
        format!("{MARK} the job ended as {status}: {reason}")
    } else {
        format!("{MARK} this attempt ended: {reason}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line() {
        let line = last(JobStatus::Failed, "worker\nlost\r\0");
        assert_eq!(line, "[kiln] the job ended as failed: worker lost  ");
        let line = last(JobStatus::Queued, "no room");
        assert_eq!(line, "[kiln] this attempt ended: no room");
    }
}
