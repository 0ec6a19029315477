//! The messages of the worker's WebSocket: JSON texts, one message each.
//!
//! ```text
//! worker                                server
//!   GET /worker/connect  (Bearer, Upgrade)
//!   hello ────────────────────────────────►
//!   ◄──────────────────── welcome or refused
//!   ◄────────────────────────────── offer *    a lease that is already ours
//!   state ────────────────────────────────►    whenever it has changed
//!   renew (all leases) ───────────────────►    every renew_seconds
//!   ◄────────────────────────────── renewed    and which of them are lost
//!   ◄─────────────────────────────── cancel
//!   live bytes of a log (binary) ─────────►    see [`crate::live`]
//!   ◄─────────────────────────────── passed
//! ```
//!
//! Losing the socket is not losing a lease: the worker connects again and says
//! hello with the same session and the leases that it has.

use std::collections::BTreeMap;

use kiln_core::farm::{Fence, JobId, OfferedImage, SessionId};
use serde::{Deserialize, Serialize};

/// The version of this protocol. A server takes workers of just this one.
pub const PROTOCOL: u32 = 1;

/// Where the WebSocket is.
pub const CONNECT_PATH: &str = "/worker/connect";

/// The longest message, in bytes.
pub const MAX_MESSAGE: usize = 2 << 20;

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum FromWorker {
    /// The first message of a connection.
    Hello(Hello),
    /// What has changed about it.
    State(State),
    /// It still has these leases.
    Renew {
        /// All of them.
        leases: Vec<Fence>,
    },
}

/// Who a worker is. Fields that are not known are ignored, so that a server can
/// tell a worker of another version that it is of another version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// kiln's version, for people.
    pub version: String,
    /// This start of it.
    pub session: SessionId,
    /// How many jobs it may run at once.
    pub slots: u32,
    /// What its operator said about it.
    pub labels: BTreeMap<String, String>,
    /// What it is doing.
    pub state: State,
    /// The leases that it still has: not empty when it connects again.
    pub leases: Vec<Fence>,
}

/// What a worker is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// How many jobs it would have at once now: those that it has, and as many
    /// more as its slots, memory and disk allow. What it has room for follows
    /// from its leases, so that no message can come too late.
    pub capacity: u32,
    /// The images that it has.
    pub images: Vec<OfferedImage>,
    /// Whether it takes jobs.
    #[serde(flatten)]
    pub mood: Mood,
    /// Why it takes fewer jobs than it has slots, when memory or disk is lacking.
    pub short_of: Option<String>,
}

/// Whether a worker takes jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mood", rename_all = "kebab-case")]
pub enum Mood {
    /// It takes jobs.
    Ready,
    /// It ends when its jobs have ended.
    Draining,
    /// It failed jobs for reasons of its own and takes none until it is well.
    Unwell {
        /// A sentence for the operator; names nothing but what is wrong.
        reason: String,
    },
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum FromServer {
    /// The answer to a hello.
    Welcome {
        /// [`PROTOCOL`].
        protocol: u32,
        /// What the worker is called.
        name: String,
        /// How often to renew.
        renew_seconds: u64,
        /// Leases of the hello that are not this session's any more.
        lost: Vec<Fence>,
        /// How long to gather a log before it is appended; absent when it is appended at
        /// once. What is gathered may be sent early meanwhile ([`crate::live`]).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gather: Option<Gather>,
    },
    /// The other answer; the connection ends after it.
    Refused {
        /// Why, and what to do.
        reason: String,
        /// Whether there is any use in trying again with the same words.
        again: bool,
    },
    /// A job for this worker, which has its lease already.
    Offer(Box<Offer>),
    /// The answer to a renewal.
    Renewed {
        /// Leases that are not this session's any more: their guests must go.
        lost: Vec<Fence>,
    },
    /// The answer to each message of live bytes: there may be another now.
    Passed,
    /// Somebody cancelled the job of this lease: its guest must go.
    Cancel {
        /// The lease.
        fence: Fence,
    },
}

/// How much of a log makes one append, and how long is waited for so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gather {
    /// From the first byte on.
    pub milliseconds: u64,
    /// So many bytes are not waited with.
    pub bytes: u64,
}

/// A job and the lease for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// The lease.
    pub fence: Fence,
    /// Which attempt at the job this is, from 1.
    pub attempt: u32,
    /// The job.
    pub job: JobId,
    /// Its owner, by whom guests with packages are kept apart; of no other farm.
    pub owner: String,
    /// What to do.
    pub recipe: Recipe,
    /// Where people look at it; the guest's `JOB_URL`.
    pub url: String,
    /// How long it may take, in seconds.
    pub deadline_seconds: u64,
    /// The largest artifact that the farm takes, in bytes.
    pub artifact_limit: u64,
    /// What the guest shows at `farm.internal`: reads this job, and nothing else.
    pub token: String,
    /// Whether the manifest's secrets are wanted.
    pub secrets: bool,
    /// Where the job's log ends: a worker's lines come behind the server's. Absent where the
    /// server does not know it now.
    #[serde(default)]
    pub log: Option<u64>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Recipe {
    /// A builds.sr.ht manifest.
    Manifest {
        /// Its text.
        text: String,
    },
}
