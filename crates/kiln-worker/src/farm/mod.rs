//! A worker of a farm: it takes jobs from a server and runs them here.
//!
//! ```text
//!  server ◄═ WebSocket ═► connection ─ offers ─► job ─► kiln_worker::run ─► guest
//!         ◄─ HTTP ─ uploader ◄─ spool ◄─ reporter ◄───────┘
//! ```
//!
//! | module | what |
//! |---|---|
//! | `host` | what a worker needs of its host: the seam to QEMU |
//! | `connection` | the WebSocket: hello, offers, renewals, what changed |
//! | `worker` | what it has: its leases, its mood, its room |
//! | `lease` | one lease, and requests under it until they are answered |
//! | `job` | one job, from its offer to its last word |
//! | `reporter`, `spool`, `uploader` | a job's events and logs on their way to the server |
//! | `live` | its logs on theirs to those who read them as they grow |
//! | `artifacts` | its files on theirs |
//! | `internal` | what its guest sees of the farm |
//! | `health` | a worker that fails jobs for reasons of its own takes none |
//! | `directory` | the data directory, which is one worker's |
//!
//! Invariants:
//! * Nothing is sent under a lease that is known to be lost, and its guest goes.
//! * A lease is kept until its end is acknowledged; losing the connection loses none.
//! * Events and logs of a job arrive in the order in which they happened.
//! * What waits for the server is in a file of bounded length, never in memory;
//!   when it is full the guest is not read.

mod artifacts;
mod backoff;
mod connection;
mod directory;
mod health;
mod host;
mod internal;
mod job;
mod lease;
mod live;
mod reporter;
mod ring;
mod spool;
mod uploader;
mod worker;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use kiln_core::farm::SessionId;
use kiln_wire::client::Client;
use tokio::{sync::watch, time::timeout};

pub use self::host::{Host, Place, Request, Room, Unfit};
use self::{directory::Directory, worker::Worker};
use crate::Limits;

/// How many bytes of a job may wait for the server, by default.
pub const SPOOL: u64 = 64 << 20;

/// How long a worker that was told to stop now takes to tell the server.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// How long it takes to leave a server that doesn't answer.
const GOODBYE: Duration = Duration::from_secs(2);

/// What a worker is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The server, with the worker's token.
    pub client: Client,
    /// How many jobs at once.
    pub slots: u32,
    /// What its operator says about it.
    pub labels: BTreeMap<String, String>,
    /// A directory of its own, made when it is missing. Files of jobs are in there
    /// while they run.
    pub data_dir: PathBuf,
    /// How much each job may make; of artifacts as much as the server takes.
    pub limits: Limits,
    /// How many bytes of a job may wait for the server; [`SPOOL`].
    pub spool: u64,
}

/// How long a worker shall go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Wish {
    /// It shall.
    #[default]
    Run,
    /// Until its jobs have ended; it takes no more.
    Drain,
    /// Its guests are killed: jobs that have not begun go back to the queue, the
    /// others have failed.
    Stop,
}

/// Works until it is wished otherwise. Dropping the future kills the guests and
/// tells nobody.
///
/// # Errors
/// When another worker has the data directory, or the server will never have
/// this one.
pub async fn run(
    config: Config,
    host: Arc<dyn Host>,
    mut wish: watch::Receiver<Wish>,
) -> anyhow::Result<()> {
    let directory = Directory::take(&config.data_dir)?;
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .context("no random numbers")?;
    let session = SessionId::new(random);
    tracing::info!(%session, "this worker's session is {session}");
    let worker = Worker::new(config, host, session, directory);
    let working = async {
        worker.look().await;
        tokio::select! {
            ended = connection::keep(&worker) => ended,
            () = worker.keep_looking() => Ok(()),
        }
    };
    let draining = async {
        wished(&mut wish, Wish::Drain).await;
        worker.drain();
        tokio::select! {
            () = worker.idle() => {}
            () = wished(&mut wish, Wish::Stop) => {
                worker.stop();
                if timeout(LAST_WORDS, worker.idle()).await.is_err() {
                    tracing::warn!("the server could not be told how all jobs ended");
                }
            }
        }
        worker.leave();
        // The connection ends the worker, if it still ends in time.
        tokio::time::sleep(GOODBYE).await;
    };
    let ended = tokio::select! {
        ended = working => ended,
        () = health::watch(&worker) => Ok(()),
        () = draining => Ok(()),
    };
    worker.abandon().await;
    ended
}

async fn wished(wish: &mut watch::Receiver<Wish>, at_least: Wish) {
    if wish.wait_for(|wish| *wish >= at_least).await.is_err() {
        // Nobody can wish any more.
        std::future::pending::<()>().await;
    }
}
