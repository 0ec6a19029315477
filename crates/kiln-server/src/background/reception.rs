//! Whether renewals can be received, and since when.
//!
//! A lease that ran out says that its worker is lost only if the worker could have renewed
//! it. So nobody is taken for lost until the server ran, and its database answered, for
//! one whole lease. Leases run by the database's clock: when that was put forward they all
//! run out at once, and there is one whole lease to renew them too.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kiln_core::farm::limits;
use kiln_store::model::Moment;
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
    /// What the database's clock said then.
    clock: Moment,
    /// What that was before it was put forward, and by how much, as long as nobody has done
    /// anything about it.
    forward: Option<(Moment, Duration)>,
}

impl Reception {
    /// Looked at each second: the database answers, and says that it is so late. Tells
    /// whether it did for one whole lease.
    pub(crate) fn is_whole(&self, clock: Moment) -> bool {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.answered(now(), clock)
    }

    /// What the database's clock said before it was put forward, and by how much, until
    /// [`Self::moved`] is said.
    pub(crate) fn put_forward(&self) -> Option<(Moment, Duration)> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.forward
    }

    /// What was begun before the clock was put forward begins as much later.
    pub(crate) fn moved(&self) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.forward = None;
    }

    /// The database did not answer.
    pub(crate) fn broke_off(&self) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.since = None;
    }
}

impl Heard {
    fn answered(&mut self, now: Duration, clock: Moment) -> bool {
        let gap = now.saturating_sub(std::mem::replace(&mut self.last, now));
        let before = std::mem::replace(&mut self.clock, clock);
        let passed = u64::try_from(clock.0.saturating_sub(before.0)).unwrap_or_default();
        let put_forward = Duration::from_micros(passed).saturating_sub(gap);
        if gap > GAP || put_forward > GAP {
            self.since = None;
        }
        if put_forward > GAP && before.0 > 0 {
            let earlier = self.forward.map(|(_, by)| by).unwrap_or_default();
            self.forward = Some((before, earlier + put_forward));
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

    fn clock(second: u64) -> Moment {
        Moment(i64::try_from(second).unwrap() * 1_000_000)
    }

    fn looks(heard: &mut Heard, seconds: std::ops::RangeInclusive<u64>) -> Vec<u64> {
        seconds
            .filter(|second| heard.answered(Duration::from_secs(*second), clock(*second)))
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
    fn a_clock_that_was_put_forward_begins_anew() {
        let mut heard = Heard::default();
        looks(&mut heard, 100..=140);
        let mut whole = (141..=175)
            .filter(|second| heard.answered(Duration::from_secs(*second), clock(second + 3600)));
        assert_eq!(whole.next(), Some(171));
    }

    #[test]
    fn a_clock_that_was_put_back_changes_nothing() {
        let mut heard = Heard::default();
        looks(&mut heard, 3700..=3740);
        assert!(heard.answered(Duration::from_secs(3741), clock(141)));
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
