//! Logs and artifacts, in a directory or in an object store that speaks S3.
//!
//! ```text
//!                      Objects
//!            directory ───┴─── s3 ─── Index: the database, which the server gives
//!     files, a lock each       objects, and a committed row for each
//! ```
//!
//! * **A log** only grows. What is *stored* is what outlives a crash, fsynced in a directory,
//!   committed in the index for an object store: only that is acknowledged, told to those who
//!   watch, and read. An append names its offset; what is there already is skipped.
//! * **A lease** is looked at where nobody else can append, so what the server says last,
//!   after it ended a lease, stays last.
//! * **A packed log** ([`frames`]) takes the place of the log some time after its job's end.
//! * **An artifact** is there whole or not at all: it is counted and hashed while it comes.
//!
//! One process uses a directory; its lock is the binary's. Any number use an object store.

mod counted;
mod directory;
pub mod frames;
mod index;
mod packed;
mod room;
mod s3;
mod table;
#[cfg(feature = "testing")]
pub mod testing;
mod upkeep;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use kiln_core::farm::{JobId, LeaseKey};
use tokio::{io::AsyncRead, sync::watch};

pub use kiln_core::farm::LogName;

use crate::{directory::Directory, room::Rooms, s3::S3};
pub use crate::{
    index::{Held, Index, IndexError, NewPiece, PackedLog, Piece},
    room::{Busy, Room},
    s3::S3Config,
    upkeep::{Found, SHARD},
};

/// Where logs and artifacts are.
#[derive(Debug, Clone)]
pub enum Config {
    /// In files.
    Directory(PathBuf),
    /// In a bucket.
    S3(S3Config),
}

impl Config {
    /// Asks an object store whether there is the bucket, and writes into it once. Of a
    /// directory there is nothing to be asked.
    ///
    /// # Errors
    /// [`ReachError`].
    pub async fn reach(&self) -> Result<(), ReachError> {
        match self {
            Self::Directory(_) => Ok(()),
            Self::S3(config) => S3::reach(config).await,
        }
    }
}

/// Why an object store can't be used: a sentence for the operator, without any key.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// It does not answer, or has failed: that may pass.
    #[error(transparent)]
    Away(io::Error),
    /// It refuses, or the settings make no sense.
    #[error(transparent)]
    Wrong(io::Error),
}

impl From<PathBuf> for Config {
    fn from(dir: PathBuf) -> Self {
        Self::Directory(dir)
    }
}

/// Why an append was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The lease is not this session's, or has ended.
    #[error("this lease is not this session's, or it has ended")]
    LeaseLost,
    /// The log ends elsewhere, or has other bytes there.
    #[error("the log ends at {stored}")]
    Offset {
        /// Where.
        stored: u64,
    },
    /// The server has not written its first line yet.
    #[error("this log has not begun")]
    NotBegun,
    /// What stores it.
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
    /// What stores it.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<IndexError> for AppendError {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::LeaseLost => Self::LeaseLost,
            IndexError::Offset { stored } => Self::Offset { stored },
            IndexError::Unavailable(source) => Self::Io(io::Error::other(source)),
        }
    }
}

impl From<IndexError> for io::Error {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Unavailable(source) => Self::other(source),
            other => Self::other(other),
        }
    }
}

/// Bytes that come from where they are stored, in bounded memory.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// All logs and artifacts of a farm.
#[derive(Debug, Clone)]
pub struct Objects {
    backend: Arc<Backend>,
    rooms: Rooms,
    /// Of artifacts, which come for as long as they like: no log waits for them.
    artifacts: Rooms,
}

#[derive(Debug)]
enum Backend {
    Directory(Directory),
    S3(S3),
}

impl Objects {
    /// Opens them where they are. An object store is not asked yet: see [`Config::reach`].
    ///
    /// # Errors
    /// As [`Self::open`], and for settings of an object store that make no sense.
    pub async fn at(config: Config, index: Arc<dyn Index>) -> io::Result<Self> {
        match config {
            Config::Directory(dir) => Self::open(&dir, index).await,
            Config::S3(config) => Ok(Self::of(Backend::S3(S3::connect(&config, index)?))),
        }
    }

    /// Opens a directory, and makes it if need be. Uploads that had not ended are
    /// removed.
    ///
    /// # Errors
    /// When it can't be made, read or written; the text names it.
    pub async fn open(dir: &Path, index: Arc<dyn Index>) -> io::Result<Self> {
        let directory = Directory::open(dir, index).await?;
        Ok(Self::of(Backend::Directory(directory)))
    }

    /// Opens them to look at them, beside servers that use them: nothing is written or
    /// removed by that.
    ///
    /// # Errors
    /// When they can't be found. An object store is not asked yet.
    pub fn look(config: Config, index: Arc<dyn Index>) -> io::Result<Self> {
        Ok(Self::of(match config {
            Config::Directory(dir) => Backend::Directory(Directory::look(&dir, index)?),
            Config::S3(config) => Backend::S3(S3::connect(&config, index)?),
        }))
    }

    fn of(backend: Backend) -> Self {
        Self {
            backend: Arc::new(backend),
            rooms: Rooms::default(),
            artifacts: Rooms::default(),
        }
    }

    /// Whether there can be written now. Into an object store that is written once a minute,
    /// and looked for between.
    ///
    /// # Errors
    /// What the disk or the object store says.
    pub async fn check(&self) -> io::Result<()> {
        match &*self.backend {
            Backend::Directory(directory) => directory.check().await,
            Backend::S3(s3) => s3.check().await,
        }
    }

    /// Whether an append costs so much that logs are gathered before it, and shown early
    /// meanwhile.
    #[must_use]
    pub fn gathers(&self) -> bool {
        matches!(&*self.backend, Backend::S3(_))
    }

    /// Whether what is stored of a log is what the index says: then the farm's own lines come
    /// with its transactions, and not beside them.
    #[must_use]
    pub fn are_indexed(&self) -> bool {
        matches!(&*self.backend, Backend::S3(_))
    }

    /// Room for so many bytes that are to come in: to be had before they are read.
    ///
    /// # Errors
    /// [`Busy`] after some seconds.
    pub async fn room(&self, bytes: usize) -> Result<Room, Busy> {
        self.rooms.take(bytes).await
    }

    /// Adds bytes at `offset` under a lease of the log's job; what is there already is
    /// skipped if it is the same. Gives where the log ends when all of it is stored. An append
    /// that was begun ends, also when nobody waits for it any more.
    ///
    /// # Errors
    /// [`AppendError`].
    pub async fn append(
        &self,
        lease: LeaseKey<'_>,
        log: &LogName,
        offset: u64,
        bytes: Bytes,
    ) -> Result<u64, AppendError> {
        match &*self.backend {
            Backend::Directory(directory) => directory.append(lease, log, offset, bytes).await,
            Backend::S3(s3) => s3.append(lease, log, offset, bytes).await,
        }
    }

    /// Begins a log with a line of the server's own, under a lease of its job, if nothing is
    /// in it. It is one line, whatever is in it. Gives where the log ends then.
    ///
    /// # Errors
    /// [`AppendError`].
    pub async fn begin(
        &self,
        lease: LeaseKey<'_>,
        log: &LogName,
        line: &str,
    ) -> Result<u64, AppendError> {
        let text = text(&[line]);
        match &*self.backend {
            Backend::Directory(directory) => directory.begin(lease, log, text).await,
            Backend::S3(s3) => s3.begin(lease, log, &text).await,
        }
    }

    /// Lines of the server's own that must be in the log before the transaction is committed
    /// in which this is called. In a directory they are written now. Else they are what this
    /// gives: the transaction itself is to write that text.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn lines_before_commit(
        &self,
        log: &LogName,
        lines: &[String],
    ) -> io::Result<Option<String>> {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let text = text(&lines);
        match &*self.backend {
            Backend::Directory(directory) => {
                directory.add_text(log, text).await?;
                Ok(None)
            }
            Backend::S3(_) => Ok(Some(text)),
        }
    }

    /// Lines of the server's own, with their ends, that must be in a log which has begun after
    /// the transaction that says so. In a directory they are written now; in an object store
    /// they are there with that transaction.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn lines_after_commit(&self, log: &LogName, text: &str) -> io::Result<()> {
        match &*self.backend {
            Backend::Directory(directory) => directory.end(log, text.to_owned()).await,
            Backend::S3(_) => Ok(()),
        }
    }

    /// Where the log ends, as it is stored; 0 when there is none.
    ///
    /// # Errors
    /// What the disk or the index says, or when the name can't be one.
    pub async fn stored(&self, log: &LogName) -> io::Result<u64> {
        match &*self.backend {
            Backend::Directory(directory) => directory.stored(log).await,
            Backend::S3(s3) => s3.stored(log).await,
        }
    }

    /// Reads bytes [from, to) of what is stored; fewer when fewer are.
    ///
    /// # Errors
    /// What the disk, the object store or the index says, or when the name can't be one.
    pub async fn read(&self, log: &LogName, from: u64, to: u64) -> io::Result<Reader> {
        match &*self.backend {
            Backend::Directory(directory) => directory.read(log, from, to).await,
            Backend::S3(s3) => s3.read(log, from, to).await,
        }
    }

    /// Told with each growth that this process knows of: where the log ends. It says 0 until
    /// somebody asked [`Self::stored`] or appended.
    #[must_use]
    pub fn watch(&self, log: &LogName) -> watch::Receiver<u64> {
        match &*self.backend {
            Backend::Directory(directory) => directory.watch(log),
            Backend::S3(s3) => s3.watch(log),
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
        match &*self.backend {
            Backend::Directory(directory) => {
                directory.put_artifact(job, index, body, size, sha256).await
            }
            Backend::S3(s3) => {
                let room = s3.artifact_room(size);
                let room = self.artifacts.take(room).await.map_err(io::Error::other)?;
                let put = s3.put_artifact(job, index, body, size, sha256).await;
                drop(room);
                put
            }
        }
    }

    /// Bytes [from, to) of an artifact; fewer when fewer are.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub async fn artifact(&self, job: JobId, index: u32, from: u64, to: u64) -> io::Result<Reader> {
        match &*self.backend {
            Backend::Directory(directory) => directory.artifact(job, index, from, to).await,
            Backend::S3(s3) => s3.artifact(job, index, from, to).await,
        }
    }
}

/// Lines as text: one line each, whatever is in it.
fn text(lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(&line.replace(['\n', '\r', '\0'], " "));
        text.push('\n');
    }
    text
}

/// The longest name that file systems have, in bytes.
const MAX_NAME: usize = 255;

/// Whether that can be the name of one file, in the directory where it is meant to be.
fn is_name(name: &str) -> bool {
    let wrong = |byte: u8| byte == b'/' || byte == 0;
    !matches!(name, "" | "." | "..") && name.len() <= MAX_NAME && !name.bytes().any(wrong)
}

fn no_name() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "that is no task's name")
}
