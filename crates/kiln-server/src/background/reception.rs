//! Whether renewals can be received, and since when.
//!
//! A lease that ran out says that its worker is lost only if the worker could have renewed
//! it. So nobody is taken for lost until the server ran, and its database answered, for
//! one whole lease.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kiln_core::farm::limits;
use rustix::time::{ClockId, clock_gettime};

/// One whole lease.
const WHOLE: Duration = Duration::from_secs(limits::LEASE_SECONDS);
/// Longer than this between two looks, the server did not run.
const GAP: Duration = Duration::from_secs(limits::RENEW_SECONDS);

/// Whether renewals can be received, and since when.
#[derive(Debug, Default)]
pub(crate) struct Reception(Mutex<Heard>);

/// Moments are times since the host started.
#[derive(Debug, Default, Clone, Copy)]
struct Heard {
    since: Option<Duration>,
    last: Duration,
}

impl Reception {
    /// Looked at each second: the database answers. Tells whether it did for one whole lease.
    pub(crate) fn is_whole(&self) -> bool {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.answered(now())
    }

    /// The database did not answer.
    pub(crate) fn broke_off(&self) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.since = None;
    }
}

impl Heard {
    fn answered(&mut self, now: Duration) -> bool {
        let gap = now.saturating_sub(std::mem::replace(&mut self.last, now));
        if gap > GAP {
            self.since = None;
        }
        let since = *self.since.get_or_insert(now);
        now.saturating_sub(since) >= WHOLE
    }
}

/// It goes on while the host sleeps, or this process is stopped.
fn now() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(heard: &mut Heard, seconds: std::ops::RangeInclusive<u64>) -> Vec<u64> {
        seconds
            .filter(|second| heard.answered(Duration::from_secs(*second)))
            .collect()
    }

    #[test]
    fn nobody_is_lost_before_one_whole_lease() {
        let mut heard = Heard::default();
        assert_eq!(looks(&mut heard, 100..=129), [0; 0]);
        assert_eq!(looks(&mut heard, 130..=131), [130, 131]);
    }

    #[test]
    fn a_server_that_stood_still_begins_anew() {
        let mut heard = Heard::default();
        looks(&mut heard, 100..=140);
        assert_eq!(looks(&mut heard, 146..=175), [0; 0]);
        assert_eq!(looks(&mut heard, 176..=176), [176]);
    }

    #[test]
    fn a_database_that_did_not_answer_begins_anew() {
        let reception = Reception::default();
        {
            let mut heard = reception.0.lock().unwrap();
            looks(&mut heard, 100..=140);
        }
        reception.broke_off();
        let mut heard = reception.0.lock().unwrap();
        assert_eq!(looks(&mut heard, 141..=170), [0; 0]);
        assert_eq!(looks(&mut heard, 171..=171), [171]);
    }
}
