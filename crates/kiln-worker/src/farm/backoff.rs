//! How long to wait before something is tried again.

use std::time::Duration;

/// Waits that double, each between half and all of its length by chance, so that
/// many workers don't come back in one moment.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    least: Duration,
    most: Duration,
}

impl Backoff {
    pub fn new(least: Duration, most: Duration) -> Self {
        Self {
            next: least,
            least,
            most,
        }
    }

    /// For a server that is away: 0.2 to 10 seconds.
    pub fn of_server() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(10))
    }

    /// It went well: the next wait is the shortest again.
    pub fn reset(&mut self) {
        self.next = self.least;
    }

    /// The next wait.
    pub fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.most);
        wait.mul_f64(0.5 + 0.5 * chance())
    }

    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next()).await;
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
    fn waits_grow_to_their_limit_and_start_again() {
        let mut backoff = Backoff::of_server();
        let within = |wait: Duration, most: u64| {
            let most = Duration::from_millis(most);
            assert!(wait >= most / 2 && wait <= most, "{wait:?} {most:?}");
        };
        for most in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            within(backoff.next(), most);
        }
        backoff.reset();
        within(backoff.next(), 200);
    }
}
