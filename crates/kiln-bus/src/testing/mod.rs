//! For tests: a private Redis, and a bus that drops everything.

mod redis;

use std::sync::Arc;

use tokio::sync::broadcast;

pub use self::redis::{Redis, Setup};
use crate::{Bus, Heard, Hint, Status, Way};

/// A bus that takes everything and gives nothing, and does not know it: what every bus may
/// be at any time.
#[must_use]
pub fn dropping() -> Bus {
    let way = Arc::new(Dropping(broadcast::Sender::new(1)));
    Bus { way }
}

#[derive(Debug)]
struct Dropping(broadcast::Sender<Heard>);

impl Way for Dropping {
    fn publish(&self, _: Hint) {}

    fn subscribe(&self) -> broadcast::Receiver<Heard> {
        self.0.subscribe()
    }

    fn status(&self) -> Status {
        Status::Well
    }
}
