//! Whether renewals can be received, and since when.
//!
//! A lease that ran out says that its worker is lost only if the worker could have renewed
//! it. So nobody is taken for lost until the server ran, and its database answered, for
//! one whole lease. Leases run by the database's clock: when that was put forward they all
//! run out at once, and what was given or renewed while it was behind runs out too early. So
//! after each jump there is one whole lease to renew them too.

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
    /// What that was before it was put forward, and by how much, as long as nobody has done
    /// anything about it.
    forward: Option<(i64, Duration)>,
}

impl Reception {
    /// To be called each second: the database answers, and says that it is so late. Tells
    /// whether it did for one whole lease: then leases that have run out by `clock` may end.
    #[must_use]
    pub fn is_whole(&mut self, now: Duration, clock: i64) -> bool {
        let gap = now.saturating_sub(std::mem::replace(&mut self.last, now));
        let before = std::mem::replace(&mut self.clock, clock);
        let passed = clock.saturating_sub(before);
        let moved = Duration::from_micros(passed.unsigned_abs());
        let (forward, back) = match passed < 0 {
            true => (Duration::ZERO, moved + gap),
            false => (moved.saturating_sub(gap), gap.saturating_sub(moved)),
        };
        if gap > GAP || forward > GAP || back > GAP {
            self.since = None;
        }
        if forward > GAP && before > 0 {
            let earlier = self.forward.map(|(_, by)| by).unwrap_or_default();
            self.forward = Some((before, earlier + forward));
        }
        let since = *self.since.get_or_insert(now);
        now.saturating_sub(since) >= WHOLE
    }

    /// What the database's clock said before it was put forward, in microseconds, and by how
    /// much, until [`Self::moved`] is said.
    #[must_use]
    pub fn put_forward(&self) -> Option<(i64, Duration)> {
        self.forward
    }

    /// What had begun before the clock was put forward begins as much later now.
    pub fn moved(&mut self) {
        self.forward = None;
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
    fn what_had_begun_before_a_clock_was_put_forward_is_told_until_it_was_moved() {
        let mut heard = Reception::default();
        looks(&mut heard, 100..=140);
        assert_eq!(heard.put_forward(), None);
        let _ = heard.is_whole(Duration::from_secs(141), clock(3741));
        let _ = heard.is_whole(Duration::from_secs(142), clock(3742));
        let forward = Some((clock(140), Duration::from_secs(3600)));
        assert_eq!(heard.put_forward(), forward);
        heard.moved();
        assert_eq!(heard.put_forward(), None);
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
    fn a_clock_that_was_put_back_begins_anew() {
        let mut heard = Reception::default();
        looks(&mut heard, 3700..=3740);
        let mut whole = (3741..=3775)
            .filter(|second| heard.is_whole(Duration::from_secs(*second), clock(second - 3600)));
        assert_eq!(whole.next(), Some(3771));
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
