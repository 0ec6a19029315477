//! Logs and artifacts as objects of one bucket, and rows of the index.
//!
//! ```text
//! <prefix>/
//!     logs/<job / 1000>/<job>/log/<start>-<random>             a piece of a job's log
//!     logs/<job / 1000>/<job>/tasks/<task>/<start>-<random>    of a task's
//!     logs/<job / 1000>/<job>/log/packed-<random>              the whole, once it is packed
//!     artifacts/<job / 1000>/<job>/<index>
//!     ready                                                    written to see whether one can
//! ```
//!
//! An append is an object with a key that nobody else has, and then a row: with that the bytes
//! are stored. Who was not first with the row removes the object; one that a crash left is
//! found by its key, which says whose it is.

mod artifact;
mod bucket;
mod config;
mod fault;
mod key;
mod pack;
#[cfg(feature = "testing")]
mod raw;
mod read;

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use kiln_core::farm::{Fence, JobId, LeaseKey, LogName, SessionId, WorkerId};
use tokio::{
    io::AsyncRead,
    sync::{Mutex, watch},
};

use self::{bucket::Bucket, read::Pieces};
use crate::{
    AppendError, Held, Index, IndexError, NewPiece, Piece, PutError, ReachError, Reader,
    counted::sha256,
    table::{Table, Watched},
};
pub use config::S3Config;
#[cfg(feature = "testing")]
pub use raw::Raw;

/// How long an append may take. Its worker waits longer for the answer, which is then
/// that it may be sent again.
const APPEND: Duration = Duration::from_secs(20);

/// Pieces that are looked at in one go to see whether bytes are there.
const PIECES: u32 = 64;

#[derive(Debug, Clone)]
pub(crate) struct S3(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bucket: Bucket,
    index: Arc<dyn Index>,
    logs: Table<Known>,
}

/// What this process knows of a log.
#[derive(Debug, Default)]
struct Known {
    /// Those who append here do so one after the other; other servers' lose, and try again.
    turn: Mutex<()>,
    /// So much of it was stored when it was last looked at.
    stored: watch::Sender<u64>,
}

impl Watched for Known {
    fn is_watched(&self) -> bool {
        self.stored.receiver_count() > 0
    }
}

impl Known {
    fn grown(&self, to: u64) {
        self.stored.send_if_modified(|stored| {
            let grown = to > *stored;
            *stored = to.max(*stored);
            grown
        });
    }
}

/// A [`LeaseKey`] that may outlive who asked.
struct Lease {
    worker: WorkerId,
    session: SessionId,
    fence: Fence,
}

impl Lease {
    fn key(&self) -> LeaseKey<'_> {
        LeaseKey {
            worker: self.worker,
            session: &self.session,
            fence: self.fence,
        }
    }
}

impl S3 {
    pub(crate) fn connect(config: &S3Config, index: Arc<dyn Index>) -> io::Result<Self> {
        Ok(Self(Arc::new(Inner {
            bucket: Bucket::connect(config)?,
            index,
            logs: Table::default(),
        })))
    }

    /// Whether the bucket is there, can be listed, and written.
    pub(crate) async fn reach(config: &S3Config) -> Result<(), ReachError> {
        let bucket = Bucket::connect(config).map_err(ReachError::Wrong)?;
        let reached = async {
            bucket.look().await?;
            bucket.check().await
        };
        reached.await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => ReachError::Wrong(error),
            _ => ReachError::Away(error),
        })
    }

    pub(crate) async fn check(&self) -> io::Result<()> {
        self.0.bucket.check().await
    }

    pub(crate) async fn append(
        &self,
        lease: LeaseKey<'_>,
        log: &LogName,
        offset: u64,
        bytes: Bytes,
    ) -> Result<u64, AppendError> {
        key::of_log(log)?;
        let lease = Lease {
            worker: lease.worker,
            session: lease.session.clone(),
            fence: lease.fence,
        };
        let (inner, log) = (Arc::clone(&self.0), log.clone());
        // It goes on when nobody waits for it any more: nothing is left half done.
        let appended = tokio::spawn(async move {
            let append = inner.append(&lease, &log, offset, bytes);
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the append took too long");
            tokio::time::timeout(APPEND, append).await.map_err(late)?
        });
        appended.await.map_err(io::Error::other)?
    }

    pub(crate) async fn begin(
        &self,
        lease: LeaseKey<'_>,
        log: &LogName,
        text: &str,
    ) -> Result<u64, AppendError> {
        key::of_log(log)?;
        let stored = self.0.index.begin(lease, log, text).await?;
        self.0.known(log).grown(stored);
        Ok(stored)
    }

    pub(crate) async fn stored(&self, log: &LogName) -> io::Result<u64> {
        key::of_log(log)?;
        Ok(self.0.look(log).await?)
    }

    pub(crate) async fn read(&self, log: &LogName, from: u64, to: u64) -> io::Result<Reader> {
        let end = to.min(self.stored(log).await?);
        Ok(Pieces::new(&self.0, log, from, end).reader())
    }

    pub(crate) fn watch(&self, log: &LogName) -> watch::Receiver<u64> {
        self.0.known(log).stored.subscribe()
    }

    pub(crate) fn artifact_room(&self, size: u64) -> usize {
        artifact::room(size)
    }

    pub(crate) async fn put_artifact(
        &self,
        job: JobId,
        index: u32,
        body: &mut (dyn AsyncRead + Send + Unpin),
        size: u64,
        sha256: &str,
    ) -> Result<(), PutError> {
        let key = key::of_artifact(job, index);
        artifact::put(&self.0.bucket, &key, body, size, sha256).await
    }

    pub(crate) async fn artifact(
        &self,
        job: JobId,
        index: u32,
        from: u64,
        to: u64,
    ) -> io::Result<Reader> {
        let key = key::of_artifact(job, index);
        self.0.bucket.stream(&key, from, to).await
    }
}

impl Inner {
    fn known(&self, log: &LogName) -> Arc<Known> {
        self.logs.get(log, Known::default)
    }

    /// Where a log ends now; those who watch are told.
    async fn look(&self, log: &LogName) -> Result<u64, IndexError> {
        let stored = self.index.end(log).await?;
        self.known(log).grown(stored);
        Ok(stored)
    }

    async fn append(
        &self,
        lease: &Lease,
        log: &LogName,
        offset: u64,
        bytes: Bytes,
    ) -> Result<u64, AppendError> {
        let known = self.known(log);
        let _turn = known.turn.lock().await;
        let mut new = bytes;
        let mut stored = *known.stored.borrow();
        // What goes on where we last were needs no look: its commit is one.
        if stored != offset || stored == 0 || new.is_empty() {
            if self.index.holds(lease.key()).await? != log.job() {
                return Err(AppendError::LeaseLost);
            }
            stored = self.look(log).await?;
            if stored == 0 {
                return Err(AppendError::NotBegun);
            }
            let there = stored.checked_sub(offset);
            let there = there.ok_or(AppendError::Offset { stored })?;
            let there = usize::try_from(there).unwrap_or(usize::MAX).min(new.len());
            let old = new.split_to(there);
            if !self.has(log, offset, &old).await? {
                return Err(AppendError::Offset { stored });
            }
            if new.is_empty() {
                return Ok(stored);
            }
        }
        let added = self.add(lease, log, stored, new.clone()).await;
        if let Ok(end) | Err(AppendError::Offset { stored: end }) = added {
            known.grown(end);
        }
        let Err(AppendError::Offset { stored: end }) = added else {
            return added;
        };
        // Another server was first, or this one and its answer was lost: that is no other
        // than a repetition.
        let there = end.saturating_sub(stored) >= new.len() as u64;
        match there && self.has(log, stored, &new).await? {
            true => Ok(end),
            false => Err(AppendError::Offset { stored: end }),
        }
    }

    /// Whether these bytes are in the log there. Of a piece that is all among them its
    /// SHA-256 tells.
    async fn has(&self, log: &LogName, offset: u64, bytes: &[u8]) -> io::Result<bool> {
        let end = offset + bytes.len() as u64;
        let mut at = offset;
        while at < end {
            let pieces = self.index.pieces(log, at, PIECES).await?;
            if pieces.is_empty() {
                return Ok(false);
            }
            for piece in pieces.iter().take_while(|piece| piece.start < end) {
                let to = piece.end().min(end);
                let part = &bytes[index(at - offset)..index(to - offset)];
                if !self.is(piece, at, part).await? {
                    return Ok(false);
                }
                at = to;
            }
        }
        Ok(true)
    }

    /// Whether a piece has these bytes there.
    async fn is(&self, piece: &Piece, at: u64, bytes: &[u8]) -> io::Result<bool> {
        let (from, to) = (at - piece.start, at - piece.start + bytes.len() as u64);
        match &piece.held {
            Held::Text(text) => Ok(text[index(from)..index(to)] == *bytes),
            // Nothing is sent again that was acknowledged so long ago.
            Held::Packed { .. } => Ok(false),
            Held::Object { sha256: known, .. } if bytes.len() as u64 == piece.length => {
                Ok(*known == sha256(bytes))
            }
            Held::Object { key, .. } => Ok(self.bucket.get(key, from..to).await? == *bytes),
        }
    }

    /// Makes bytes the log's next piece.
    async fn add(
        &self,
        lease: &Lease,
        log: &LogName,
        start: u64,
        bytes: Bytes,
    ) -> Result<u64, AppendError> {
        let piece = NewPiece {
            start,
            length: bytes.len() as u64,
            sha256: sha256(&bytes),
            key: key::of_piece(log, start)?,
            mid_line: bytes.last() != Some(&b'\n'),
        };
        self.bucket.put(&piece.key, bytes).await?;
        let committed = self.index.commit(lease.key(), log, &piece).await;
        if let Err(IndexError::LeaseLost | IndexError::Offset { .. }) = &committed
            && let Err(error) = self.bucket.delete(&piece.key).await
        {
            let key = &piece.key;
            tracing::debug!(key, "an object that is no piece of a log stays: {error}");
        }
        committed?;
        Ok(start + piece.length)
    }
}

/// An index into what is in memory.
fn index(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}
