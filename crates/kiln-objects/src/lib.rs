//! Logs and artifacts as files of one directory.
//!
//! ```text
//! objects/
//!     logs/<job / 1000>/<job>/log           log.zst once it is packed
//!     logs/<job / 1000>/<job>/tasks/<task>/log
//!     artifacts/<job / 1000>/<job>/<index>
//!     incoming/                             uploads that have not ended
//! ```
//!
//! * **A log** only grows. What is *stored* is what has been fsynced: only that is
//!   acknowledged, told to those who watch, and read. What a crash left beyond the last
//!   acknowledged byte counts as stored once it is fsynced, when the log is next looked at.
//! * **A packed log** ([`frames`]) takes the place of the log when nothing is added any more.
//!   Where both are there, the log counts.
//! * **An artifact** is there whole or not at all: it comes into `incoming/`, is counted and
//!   hashed meanwhile, and is renamed when it is on disk.
//!
//! One process uses a directory; its lock is the binary's.

mod artifact;
mod disk;
pub mod frames;
mod log;
mod pack;
mod packed;
mod table;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use kiln_core::farm::JobId;
use tokio::{io::AsyncRead, sync::watch};

pub use kiln_core::farm::LogName;

pub use crate::log::LockedLog;
use crate::table::Table;

/// Why an append was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The log ends elsewhere, or has other bytes there.
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
    /// It stopped coming.
    #[error("the upload broke off: {0}")]
    Broken(#[source] io::Error),
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What is read.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// All of them.
#[derive(Debug, Clone)]
pub struct Objects {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    logs: Table,
    /// Names in `incoming/`.
    next: AtomicU64,
}

impl Objects {
    /// Opens the directory, and makes it if need be. Uploads that had not ended are
    /// removed.
    ///
    /// # Errors
    /// When it can't be made, read or written; the text names it.
    pub async fn open(dir: &Path) -> io::Result<Self> {
        let dir = dir.to_owned();
        disk::blocking(move || {
            disk::prepare(&dir).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", dir.display()))
            })?;
            let inner = Inner {
                dir,
                logs: Table::default(),
                next: AtomicU64::new(0),
            };
            Ok(Self {
                inner: Arc::new(inner),
            })
        })
        .await
    }

    /// Whether the directory can be written now.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn check(&self) -> io::Result<()> {
        let probe = self.incoming();
        disk::blocking(move || {
            std::fs::write(&probe, b"kiln")?;
            std::fs::remove_file(&probe)
        })
        .await
    }

    /// Takes a log's lock: nobody else appends to it meanwhile. What is checked under it
    /// is still true when the bytes are written.
    ///
    /// # Errors
    /// When the disk fails, or the name can't be one.
    pub async fn lock(&self, log: &LogName) -> io::Result<LockedLog> {
        self.entry(log)?.lock().await
    }

    /// Adds bytes at `offset`; what is there already is skipped. Gives where the
    /// log ends when all of it is on disk (fsync).
    ///
    /// # Errors
    /// [`AppendError`].
    pub async fn append(
        &self,
        log: &LogName,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, AppendError> {
        let bytes = Bytes::copy_from_slice(bytes);
        self.lock(log).await?.append(offset, bytes).await
    }

    /// Adds a line of the server's own at the end, wherever that is. It is a line of its
    /// own, also when what is there has no end of line.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn append_line(&self, log: &LogName, line: &str) -> io::Result<u64> {
        self.lock(log).await?.append_line(line).await
    }

    /// Where the log ends, as it is on disk; 0 when there is none.
    ///
    /// # Errors
    /// When the disk fails, or the name can't be one.
    pub async fn stored(&self, log: &LogName) -> io::Result<u64> {
        let entry = self.entry(log)?;
        match entry.known() {
            Some(stored) => Ok(stored),
            None => Ok(entry.lock().await?.stored()),
        }
    }

    /// Reads bytes [from, to) of what is stored; fewer when fewer are.
    ///
    /// # Errors
    /// When the disk fails, or the name can't be one.
    pub async fn read(&self, log: &LogName, from: u64, to: u64) -> io::Result<Reader> {
        let end = to.min(self.stored(log).await?);
        if from >= end {
            return Ok(Box::new(tokio::io::empty()));
        }
        self.entry(log)?.read(from, end).await
    }

    /// Where to begin to read for this line, from 1: a byte, and the number of the line that it
    /// is of, which is not behind it. A packed log has an index for that; others are read
    /// from their begin.
    ///
    /// # Errors
    /// When the disk fails, or the name can't be one.
    pub async fn seek_line(&self, log: &LogName, line: u64) -> io::Result<(u64, u64)> {
        self.stored(log).await?;
        Ok(self.entry(log)?.seek_line(line))
    }

    /// Packs a log to which nothing will be added any more, if that makes it smaller. Who
    /// reads it meanwhile, or after a crash at any point, reads the same. Gives how many bytes it
    /// takes then; to pack it again does no harm.
    ///
    /// # Errors
    /// When the disk fails; then it is as it was.
    pub async fn pack(&self, log: &LogName) -> io::Result<u64> {
        let locked = self.lock(log).await?;
        locked.pack(self.incoming()).await
    }

    /// Told with each growth: where the log ends. It says 0 until somebody asked
    /// [`Self::stored`] or appended.
    #[must_use]
    pub fn watch(&self, log: &LogName) -> watch::Receiver<u64> {
        match self.entry(log) {
            Ok(entry) => entry.watch(),
            // Of a log that can't be, nothing is ever told.
            Err(_) => watch::channel(0).1,
        }
    }

    /// Keeps an artifact while it comes in, in bounded memory. One that is there is
    /// replaced. `sha256` is in hexadecimal.
    ///
    /// # Errors
    /// [`PutError`]; then nothing of it is left.
    pub async fn put_artifact(
        &self,
        job: JobId,
        index: u32,
        body: &mut (dyn AsyncRead + Send + Unpin),
        size: u64,
        sha256: &str,
    ) -> Result<(), PutError> {
        let incoming = artifact::Incoming::take(self.incoming(), body, size, sha256).await?;
        let dir = self.inner.dir.clone();
        let path = self.artifact_path(job, index);
        disk::blocking(move || incoming.put(&dir, &path)).await?;
        Ok(())
    }

    /// An artifact's file.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub async fn artifact(&self, job: JobId, index: u32) -> io::Result<tokio::fs::File> {
        tokio::fs::File::open(self.artifact_path(job, index)).await
    }

    fn entry(&self, name: &LogName) -> io::Result<Arc<log::Log>> {
        let path = self.log_path(name)?;
        Ok(self.inner.logs.get(name, &self.inner.dir, path))
    }

    fn log_path(&self, name: &LogName) -> io::Result<PathBuf> {
        let logs = self.inner.dir.join(disk::LOGS);
        match name {
            LogName::Job(job) => Ok(disk::of_job(&logs, *job).join("log")),
            LogName::Task(job, task) if disk::is_name(task) => {
                let tasks = disk::of_job(&logs, *job).join("tasks");
                Ok(tasks.join(task).join("log"))
            }
            LogName::Task(..) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "that is no task's name",
            )),
        }
    }

    fn artifact_path(&self, job: JobId, index: u32) -> PathBuf {
        let artifacts = self.inner.dir.join(disk::ARTIFACTS);
        disk::of_job(&artifacts, job).join(index.to_string())
    }

    fn incoming(&self) -> PathBuf {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let incoming = self.inner.dir.join(disk::INCOMING);
        incoming.join(number.to_string())
    }
}
