//! How long to wait before something is tried again.

use std::time::Duration;

/// Waits that double, each between half and all of its length by chance, so that many don't
/// come back in one moment.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    least: Duration,
    most: Duration,
    /// Within what time the next wait is, if it is not one of those.
    spread: Option<Duration>,
}

impl Backoff {
    /// Waits from `least` to `most`.
    #[must_use]
    pub fn new(least: Duration, most: Duration) -> Self {
        Self {
            next: least,
            least,
            most,
            spread: None,
        }
    }

    /// For a server that is away: 0.2 to 10 seconds.
    #[must_use]
    pub fn of_server() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(10))
    }

    /// It went well: the next wait is the shortest again.
    pub fn reset(&mut self) {
        self.next = self.least;
        self.spread = None;
    }

    /// It went well, for many who lose it in one moment: the next wait is any within this, and
    /// the one after it the shortest.
    pub fn spread(&mut self, within: Duration) {
        self.reset();
        self.spread = Some(within);
    }

    /// The next wait is one of the longest.
    pub fn long(&mut self) {
        self.next = self.most;
    }

    /// The next wait; `chance` is a random number.
    pub fn next(&mut self, chance: u32) -> Duration {
        let chance = f64::from(chance) / f64::from(u32::MAX);
        if let Some(within) = self.spread.take() {
            return within.mul_f64(chance);
        }
        let wait = self.next;
        self.next = (wait * 2).min(self.most);
        wait.mul_f64(0.5 + 0.5 * chance)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_to_their_limit_and_start_again(chances in prop::collection::vec(any::<u32>(), 11)) {
            let mut backoff = Backoff::of_server();
            let expected = [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000];
            for (most, chance) in expected.into_iter().zip(&chances) {
                let most = Duration::from_millis(most);
                let wait = backoff.next(*chance);
                prop_assert!(wait >= most / 2 && wait <= most, "{wait:?} {most:?}");
            }
            backoff.spread(Duration::from_secs(3));
            prop_assert!(backoff.next(chances[8]) <= Duration::from_secs(3));
            prop_assert!(backoff.next(chances[9]) <= Duration::from_millis(200));
            backoff.long();
            prop_assert!(backoff.next(chances[10]) >= Duration::from_secs(5));
        }
    }

    #[test]
    fn who_loses_it_with_many_others_comes_back_at_any_time_within_the_spread() {
        let mut backoff = Backoff::of_server();
        let mut wait = |chance| {
            backoff.spread(Duration::from_secs(3));
            backoff.next(chance)
        };
        assert_eq!(wait(0), Duration::ZERO);
        assert_eq!(wait(u32::MAX), Duration::from_secs(3));
    }
}
