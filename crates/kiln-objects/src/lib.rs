//! Logs and artifacts as files of one directory.
//!
//! ```text
//! objects/
//!     logs/<job / 1000>/<job>/log
//!     logs/<job / 1000>/<job>/tasks/<task>/log
//!     artifacts/<job / 1000>/<job>/<index>
//!     incoming/                             uploads that have not ended
//! ```
#![allow(unused, clippy::todo, missing_docs)]

use std::{io, path::Path};

use kiln_core::farm::JobId;
use tokio::sync::watch;

/// One of a job's logs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogName {
    /// The job's own.
    Job(JobId),
    /// A task's; a name that the manifest's parser let through.
    Task(JobId, String),
}

/// Why an append was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The log ends elsewhere.
    #[error("the log ends at {stored}")]
    Offset {
        /// Where.
        stored: u64,
    },
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why an artifact was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// It is not as long as, or not what, it was said to be.
    #[error("{0}")]
    Different(String),
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// All of them.
#[derive(Debug, Clone)]
pub struct Objects {}

impl Objects {
    /// Opens the directory, and makes it if need be.
    pub async fn open(dir: &Path) -> io::Result<Self> {
        todo!()
    }
    /// Adds bytes at `offset`; what is there already is skipped. Gives where the
    /// log ends when all of it is on disk (fsync).
    pub async fn append(
        &self,
        log: &LogName,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, AppendError> {
        todo!()
    }
    /// Adds a line of the server's own at the end, wherever that is.
    pub async fn append_line(&self, log: &LogName, line: &str) -> io::Result<u64> {
        todo!()
    }
    /// Where the log ends, as it is on disk; 0 when there is none.
    pub async fn stored(&self, log: &LogName) -> io::Result<u64> {
        todo!()
    }
    /// Reads bytes [from, to) of what is stored.
    pub async fn read(
        &self,
        log: &LogName,
        from: u64,
        to: u64,
    ) -> io::Result<Box<dyn tokio::io::AsyncRead + Send + Unpin>> {
        todo!()
    }
    /// Told with each growth: where the log ends.
    pub fn watch(&self, log: &LogName) -> watch::Receiver<u64> {
        todo!()
    }
    /// Keeps an artifact while it comes in, in bounded memory.
    pub async fn put_artifact(
        &self,
        job: JobId,
        index: u32,
        body: &mut (dyn tokio::io::AsyncRead + Send + Unpin),
        size: u64,
        sha256: &str,
    ) -> Result<(), PutError> {
        todo!()
    }
    /// An artifact's file.
    pub async fn artifact(&self, job: JobId, index: u32) -> io::Result<tokio::fs::File> {
        todo!()
    }
}
