//! A bus through a server of the Redis protocol: Redis, Valkey, Redict.
//!
//! ```text
//!          ┌───────────── away ◄──────────────┐
//!          │ back-off with jitter             │ broken off, silent, flooded
//!          ▼                                  │
//!      connecting ── subscribed ──► well ─────┘
//! ```
//!
//! One connection (RESP3) publishes and is subscribed to one channel, whose name has the URL's
//! database number in it: that is how several farms share one server, for pub/sub knows no
//! databases. Whenever a connection is made, all that listen are told that they may have
//! missed something; while there is none, what is published is dropped.
//!
//! What strangers write into the channel is no message, for it has no seal; what they repeat makes
//! one look. How much that costs is bounded: a message has a longest length, few of them wait, what comes beyond is dropped and
//! makes one look at everything; and a bus on which strangers say more than servers would (`flood`) is left
//! for a while.

mod config;
mod connection;
mod flood;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kiln_core::farm::Backoff;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::{sync::broadcast, task::AbortHandle};

pub use self::config::{Config, ConfigError};
use self::{config::Address, connection::Left};
use crate::{Bus, Heard, Hint, Key, Member, Status, Way, memory::BACKLOG, outbox::Outbox};

/// One member, which connects in the background until it is dropped.
#[derive(Debug)]
pub(crate) struct Redis {
    shared: Arc<Shared>,
    task: AbortHandle,
}

/// What the connection and its users share.
#[derive(Debug)]
struct Shared {
    key: Key,
    member: Member,
    outbox: Outbox,
    heard: broadcast::Sender<Heard>,
    status: Mutex<Status>,
}

impl Redis {
    pub(crate) fn bus(config: &Config, key: Key) -> Result<Bus, ConfigError> {
        let address = Address::of(config)?;
        let mut member = Member::default();
        getrandom(&mut member, GetRandomFlags::empty())
            .map_err(|error| ConfigError::Random(error.into()))?;
        let shared = Arc::new(Shared {
            key,
            member,
            outbox: Outbox::default(),
            heard: broadcast::Sender::new(BACKLOG),
            status: Mutex::new(Status::Away("the bus is not connected yet".to_owned())),
        });
        let task = tokio::spawn(keep(Arc::clone(&shared), address)).abort_handle();
        let way = Arc::new(Self { shared, task });
        Ok(Bus { way })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Way for Redis {
    fn publish(&self, hint: Hint) {
        self.shared.outbox.push(hint);
    }

    fn subscribe(&self) -> broadcast::Receiver<Heard> {
        self.shared.heard.subscribe()
    }

    fn status(&self) -> Status {
        let status = self.shared.status.lock();
        status.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A connection that lasted so long was a good one.
const LASTED: Duration = Duration::from_secs(30);

/// One connection after the other.
async fn keep(shared: Arc<Shared>, address: Address) {
    let mut backoff = Backoff::of_server();
    loop {
        let began = Instant::now();
        let Left { why, well, long } = connection::run(&shared, &address).await;
        shared.outbox.open(false);
        if well && began.elapsed() >= LASTED {
            backoff.reset();
        }
        if long {
            backoff.long();
        }
        shared.left(&address, &why);
        let mut random = [0xff; 4];
        // Without random numbers all wait the longest, that's all.
        let _ = getrandom(&mut random, GetRandomFlags::NONBLOCK);
        tokio::time::sleep(backoff.next(u32::from_ne_bytes(random))).await;
    }
}

impl Shared {
    fn connected(&self, address: &Address) {
        self.set(Status::Well);
        tracing::info!("the bus at {address} is connected");
        self.outbox.open(true);
        self.tell(Heard::Missed);
    }

    fn left(&self, address: &Address, why: &str) {
        let away = Status::Away(why.to_owned());
        // The same again and again is said once.
        if self.set(away.clone()) != away {
            tracing::warn!(
                "the bus at {address} is away: {why}; it is tried again, and until then other \
                 servers see what happens here up to a second later"
            );
        }
    }

    /// Gives what it was.
    fn set(&self, status: Status) -> Status {
        let mut place = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut place, status)
    }

    fn tell(&self, heard: Heard) {
        // Nobody listens: that is as it may be.
        let _ = self.heard.send(heard);
    }
}
