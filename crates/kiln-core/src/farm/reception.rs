//! Whether renewals can be received, and since when.
//!
//! A lease that ran out says that its worker is lost only if the worker could have renewed
//! it. So nobody is taken for lost until the server ran, and its database answered, for
//! one whole lease. Leases run by the database's clock: when that was put forward they all
//! run out at once, and there is one whole lease to renew them too.

use std::time::Duration;

use super::limits;

/// One whole lease.
const WHOLE: Duration = Duration::from_secs(limits::LEASE_SECONDS);
/// Longer than this between two looks, the server did not run.
const GAP: Duration = Duration::from_secs(limits::RENEW_SECONDS);

/// What a server knows of it. Moments are times since its host started, and go on while it
/// stands still.
#[derive(Debug, Default, Clone, Copy)]
pub struct Reception {
    since: Option<Duration>,
    last: Duration,
    /// What the database's clock said then, in microseconds.
    clock: i64,
}

impl Reception {
    /// To be called each second: the database answers, and says that it is so late. Tells
    /// whether it did for one whole lease: then leases that have run out by `clock` may end.
    #[must_use]
    pub fn is_whole(&mut self, now: Duration, clock: i64) -> bool {
        let gap = now.saturating_sub(std::mem::replace(&mut self.last, now));
        let before = std::mem::replace(&mut self.clock, clock);
        let passed = u64::try_from(clock.saturating_sub(before)).unwrap_or_default();
        let put_forward = Duration::from_micros(passed).saturating_sub(gap);
        if gap > GAP || put_forward > GAP {
            self.since = None;
        }
        let since = *self.since.get_or_insert(now);
        now.saturating_sub(since) >= WHOLE
    }

    /// The database did not answer.
    pub fn broke_off(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(second: u64) -> i64 {
        i64::try_from(second).unwrap() * 1_000_000
    }

    fn looks(heard: &mut Reception, seconds: std::ops::RangeInclusive<u64>) -> Vec<u64> {
        seconds
            .filter(|second| heard.is_whole(Duration::from_secs(*second), clock(*second)))
            .collect()
    }

    #[test]
    fn nobody_is_lost_before_one_whole_lease() {
        let mut heard = Reception::default();
        assert_eq!(looks(&mut heard, 100..=129), [0; 0]);
        assert_eq!(looks(&mut heard, 130..=131), [130, 131]);
    }

    #[test]
    fn a_server_that_stood_still_begins_anew() {
        let mut heard = Reception::default();
        looks(&mut heard, 100..=140);
        assert_eq!(looks(&mut heard, 146..=175), [0; 0]);
        assert_eq!(looks(&mut heard, 176..=176), [176]);
    }

    #[test]
    fn a_clock_that_was_put_forward_begins_anew() {
        let mut heard = Reception::default();
        looks(&mut heard, 100..=140);
        let mut whole = (141..=175)
            .filter(|second| heard.is_whole(Duration::from_secs(*second), clock(second + 3600)));
        assert_eq!(whole.next(), Some(171));
    }

    #[test]
    fn a_clock_that_was_put_back_changes_nothing() {
        let mut heard = Reception::default();
        looks(&mut heard, 3700..=3740);
        assert!(heard.is_whole(Duration::from_secs(3741), clock(141)));
    }

    #[test]
    fn a_database_that_did_not_answer_begins_anew() {
        let mut heard = Reception::default();
        looks(&mut heard, 100..=140);
        heard.broke_off();
        assert_eq!(looks(&mut heard, 141..=170), [0; 0]);
        assert_eq!(looks(&mut heard, 171..=171), [171]);
    }
}
