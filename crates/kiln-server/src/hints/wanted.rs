//! Logs whose bytes somebody at another server wants before they are stored. All else that is
//! said live stays here: most logs are read by nobody.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use kiln_core::farm::LogName;

/// For how long one word is good. Who follows says it each second.
const KEPT: Duration = Duration::from_secs(3);
/// How many logs are known to be wanted.
const LOGS: usize = 10_000;

/// When each log was last asked for.
#[derive(Debug, Default)]
pub(super) struct Wanted(Mutex<HashMap<LogName, Instant>>);

impl Wanted {
    /// Somebody wants it now.
    pub(super) fn add(&self, log: LogName, now: Instant) {
        let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if logs.len() >= LOGS {
            logs.retain(|_, asked| is_good(*asked, now));
        }
        if logs.len() < LOGS || logs.contains_key(&log) {
            logs.insert(log, now);
        }
    }

    /// Whether somebody does.
    pub(super) fn is(&self, log: &LogName, now: Instant) -> bool {
        let logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logs.get(log).is_some_and(|asked| is_good(*asked, now))
    }
}

fn is_good(asked: Instant, now: Instant) -> bool {
    now.saturating_duration_since(asked) < KEPT
}

#[cfg(test)]
mod tests {
    use kiln_core::farm::JobId;

    use super::*;

    fn log(job: i32) -> LogName {
        LogName::Job(JobId(job))
    }

    #[test]
    fn a_log_is_wanted_for_as_long_as_somebody_says_so() {
        let (wanted, start) = (Wanted::default(), Instant::now());
        wanted.add(log(1), start);
        assert!(wanted.is(&log(1), start) && !wanted.is(&log(2), start));
        wanted.add(log(1), start + KEPT / 2);
        assert!(wanted.is(&log(1), start + KEPT));
        assert!(!wanted.is(&log(1), start + 2 * KEPT));
    }

    #[test]
    fn no_more_logs_are_kept_than_so_many_and_old_ones_make_room() {
        let (wanted, start) = (Wanted::default(), Instant::now());
        let last = i32::try_from(LOGS).unwrap();
        (0..=last).for_each(|job| wanted.add(log(job), start));
        assert!(wanted.is(&log(0), start) && !wanted.is(&log(last), start));
        wanted.add(log(last), start + KEPT);
        assert!(wanted.is(&log(last), start + KEPT));
        assert_eq!(wanted.0.lock().unwrap().len(), 1);
    }
}
