//! What a worker reports under a lease, as plain HTTP requests.
//!
//! Each carries `Authorization: Bearer <worker token>` and
//! [`SESSION_HEADER`]; the lease is in the path.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /worker/lease/{fence}/begun` | – | 204 when committed |
//! | `POST /worker/lease/{fence}/event` | [`Event`] | [`Stored`] of the log of a task that runs, else 204, when committed |
//! | `PUT /worker/lease/{fence}/log?offset=N[&task=NAME]` | bytes, at most [`kiln_core::farm::limits::APPEND`] | [`Stored`] |
//! | `PUT /worker/lease/{fence}/artifact?index=N&path=P&size=S&sha256=H` | bytes | 204 when committed |
//! | `POST /worker/lease/{fence}/end` | [`End`] | 204 when committed |
//! | `POST /worker/lease/{fence}/return` | [`Return`] | 204 when committed |
//!
//! A log has lines of the server's own before a worker's first, and a worker begins where it
//! ends: the offer says that of the job's log, and the answer to its [`Event::Task`] with
//! `running` of a task's, which is there from then on. An append of no bytes at offset 0 asks.
//!
//! An error is [`Refusal`]. 401: no such worker. 409 `lease-lost`: this lease is
//! not this session's, or has ended; the guest must go. 409 `offset`: the log
//! ends elsewhere, at [`Refusal::stored`]. 408 `slow`: it did not come, or
//! too slowly; to be repeated. 4xx else: never to be repeated. 5xx and
//! a lost connection: to be repeated, every request here may be.

use kiln_core::job::{JobStatus, TaskStatus};
use serde::{Deserialize, Serialize};

/// The header with the worker's session.
pub const SESSION_HEADER: &str = "kiln-session";

/// Something that happened in the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A task has a new status.
    Task {
        /// Its name.
        task: String,
        /// The status.
        status: TaskStatus,
    },
    /// A source was cloned.
    Source {
        /// Its place in the manifest, from 0.
        index: u32,
        /// The commit that was checked out.
        commit: String,
    },
    /// The guest started.
    Started {
        /// The image's version.
        digest: String,
        /// How long until it could be used, in milliseconds.
        settle_ms: u64,
    },
}

/// The answer to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Where the log ends now, as it is on disk.
    pub stored: u64,
}

/// How a job ended. The tasks that have no terminal status yet get one by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// A terminal status.
    pub status: JobStatus,
    /// Why, for the owner; absent when there is nothing to say.
    pub reason: Option<String>,
    /// Each task's terminal status.
    pub tasks: Vec<(String, TaskStatus)>,
}

/// A job that this worker can't run, for reasons of its own, given back before
/// it has begun: it goes back to the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    /// Why, for the owner; names nothing of the host.
    pub reason: String,
    /// Whether this counts as one of the job's attempts. A worker that drains or
    /// is unwell gives a job back that it never tried.
    pub counts: bool,
}

/// Why a report was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs: `unauthorized`, `lease-lost`, `offset`, `invalid`,
    /// `too-large`, `slow`, `storage-full`, `unavailable`.
    pub error: String,
    /// For people.
    pub message: String,
    /// With `offset`: where the log ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<u64>,
}
