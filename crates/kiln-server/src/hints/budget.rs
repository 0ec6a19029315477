//! How much of something may be had in a second.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// So much at once, and as much again in each second.
#[derive(Debug)]
pub(crate) struct Budget {
    a_second: u64,
    left: Mutex<(Instant, u64)>,
}

impl Budget {
    pub(crate) fn new(a_second: u64) -> Self {
        Self {
            a_second,
            left: Mutex::new((Instant::now(), a_second)),
        }
    }

    /// Takes so much, if there is so much.
    pub(crate) fn spend(&self, amount: u64) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.refill(self.a_second, Instant::now());
        match left.1.checked_sub(amount) {
            Some(rest) => {
                left.1 = rest;
                true
            }
            None => false,
        }
    }
}

trait Refill {
    fn refill(&mut self, a_second: u64, now: Instant);
}

impl Refill for (Instant, u64) {
    fn refill(&mut self, a_second: u64, now: Instant) {
        let passed = now
            .saturating_duration_since(self.0)
            .min(Duration::from_secs(1));
        let more = u128::from(a_second) * passed.as_micros() / 1_000_000;
        let more = u64::try_from(more).unwrap_or(a_second);
        // Parts of one are not lost.
        if more > 0 {
            *self = (now, (self.1 + more).min(a_second));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_brings_what_a_second_brings_and_more_is_not_saved_up() {
        let start = Instant::now();
        let mut left = (start, 0);
        left.refill(1000, start + Duration::from_millis(10));
        assert_eq!(left.1, 10);
        left.refill(1000, start + Duration::from_micros(10_500));
        assert_eq!(left.1, 10);
        left.refill(1000, start + Duration::from_millis(11));
        assert_eq!(left.1, 11);
        left.refill(1000, start + Duration::from_secs(60));
        assert_eq!(left.1, 1000);
    }

    #[test]
    fn what_is_not_there_is_not_had() {
        let budget = Budget::new(1);
        assert!(budget.spend(1));
        assert!(!budget.spend(1));
    }
}
