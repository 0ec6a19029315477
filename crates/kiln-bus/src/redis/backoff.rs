//! How long to wait before the next connection.

use std::time::Duration;

const LEAST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(10);

/// Waits that double, each between half and all of its length by chance: many servers
/// don't come back in one moment.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(LEAST)
    }
}

impl Backoff {
    /// The next wait; the longest at once when `long`.
    pub(crate) fn next(&mut self, long: bool) -> Duration {
        let wait = if long { MOST } else { self.0 };
        self.0 = (wait * 2).min(MOST);
        wait.mul_f64(0.5 + 0.5 * chance())
    }
}

/// Between 0 and 1.
fn chance() -> f64 {
    let mut random = [0; 4];
    // Without random numbers all wait the longest, that's all.
    match rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(_) => f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_limit() {
        let mut backoff = Backoff::default();
        for most in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let most = Duration::from_millis(most);
            let wait = backoff.next(false);
            assert!(wait >= most / 2 && wait <= most, "{wait:?} {most:?}");
        }
        assert!(Backoff::default().next(true) >= MOST / 2);
    }
}
