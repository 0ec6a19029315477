//! Hints between the servers of a farm: "look again at X".
//!
//! ```text
//! server ── publish ─► outbox ─► PUBLISH ─► Redis ─► everybody else's subscription ─► server
//! ```
//!
//! **Nothing is ever only here.** A hint may be lost, late, repeated, forged; whoever is told to
//! look looks at the truth, and looks each second whether told or not. (Forged it may be by
//! a server of the farm alone: what is said is sealed with the farm's key.) So publishing never
//! waits and never fails: what can't be sent is dropped. Live bytes of logs are the one thing
//! that is passed on as it came, to those who read a log as it grows; they are compared
//! with what is stored once that is there.
//!
//! | module | what |
//! |---|---|
//! | `hint` | what is said, and its bytes |
//! | `seal` | by which a farm's servers know each other |
//! | `outbox` | what waits to be sent: bounded, each thing once |
//! | `memory` | between servers of one process |
//! | `redis` | the Redis protocol: Redis, Valkey, Redict |
//! | `testing` | a private Redis, and a bus that drops everything |

mod hint;
mod memory;
mod outbox;
mod redis;
mod seal;
#[cfg(feature = "testing")]
pub mod testing;

use std::sync::Arc;

use tokio::sync::broadcast;

pub use self::{
    hint::{Hint, Key, LIVE_BYTES, Member, Unreadable, decode, encode},
    memory::Hub,
    redis::{Config, ConfigError},
};

/// What a subscription hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Another member said this, or somebody who can write to the bus did.
    Hint(Hint),
    /// Something may have been missed: look at everything.
    Missed,
}

/// How the way to the others is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Hints go through, as far as is known.
    Well,
    /// They don't; why, for the operator. It names no password.
    Away(String),
}

/// One member's end of a bus. Clones are the same member.
#[derive(Debug, Clone)]
pub struct Bus {
    way: Arc<dyn Way>,
}

/// What a bus is made of.
trait Way: std::fmt::Debug + Send + Sync {
    fn publish(&self, hint: Hint);
    fn subscribe(&self) -> broadcast::Receiver<Heard>;
    fn status(&self) -> Status;
}

impl Bus {
    /// For a server that is alone.
    #[must_use]
    pub fn in_process() -> Self {
        Hub::default().join()
    }

    /// A bus through a server of the Redis protocol, version 6 or later. It connects in the
    /// background, again and again, and is a bus that drops everything until it is
    /// connected. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the URL makes no sense, or the certificates can't be read.
    pub fn redis(config: &Config, key: Key) -> Result<Self, ConfigError> {
        redis::Redis::bus(config, key)
    }

    /// Tells all other members. Never waits, never fails.
    pub fn publish(&self, hint: Hint) {
        self.way.publish(hint);
    }

    /// What the others say from now on; not what this member says.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        Subscription(self.way.subscribe())
    }

    /// How the way to the others is now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.way.status()
    }
}

/// What others say. Whoever does not listen in time hears that it missed something.
#[derive(Debug)]
pub struct Subscription(broadcast::Receiver<Heard>);

impl Subscription {
    /// Waits for what is said next; none when the bus is gone. Nothing is lost when the
    /// future is dropped.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.0.recv().await {
            Ok(heard) => Some(heard),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Heard::Missed),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
