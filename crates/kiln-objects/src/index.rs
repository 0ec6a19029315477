//! What only the database knows. The server gives it: this crate knows no database.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_core::farm::{JobId, LeaseKey, LogName};

/// What only the database knows of leases, and of logs in an object store: there, what is
/// stored is what a committed row says.
#[async_trait]
pub trait Index: fmt::Debug + Send + Sync + 'static {
    /// The job of a lease that has not ended.
    ///
    /// # Errors
    /// [`IndexError::LeaseLost`].
    async fn holds(&self, lease: LeaseKey<'_>) -> Result<JobId, IndexError>;

    /// Where a log ends; 0 when there is none.
    ///
    /// # Errors
    /// [`IndexError::Unavailable`].
    async fn end(&self, log: &LogName) -> Result<u64, IndexError>;

    /// The pieces that hold a log's bytes from this one on, in order and without a hole;
    /// so many at the most, and none when nothing is there.
    ///
    /// # Errors
    /// [`IndexError::Unavailable`].
    async fn pieces(&self, log: &LogName, from: u64, most: u32) -> Result<Vec<Piece>, IndexError>;

    /// Makes an object a log's next piece, if the lease has not ended and the log ends just
    /// there. Both stay true until that is committed.
    ///
    /// # Errors
    /// [`IndexError::LeaseLost`] and [`IndexError::Offset`]: then it is no piece. After
    /// [`IndexError::Unavailable`] nobody knows.
    async fn commit(
        &self,
        lease: LeaseKey<'_>,
        log: &LogName,
        piece: &NewPiece,
    ) -> Result<(), IndexError>;

    /// Begins a log with text that ends with a line's end, if nothing is in it and the lease
    /// has not ended. Gives where it ends then.
    ///
    /// # Errors
    /// [`IndexError::LeaseLost`] and [`IndexError::Unavailable`].
    async fn begin(
        &self,
        lease: LeaseKey<'_>,
        log: &LogName,
        text: &str,
    ) -> Result<u64, IndexError>;

    /// Puts an object with the whole log, packed, in the place of all its pieces, if it ends
    /// just there and has none yet. From then on nothing is added to it, and it has one piece.
    /// The pieces' objects are removed some time later, when nobody reads them any more.
    ///
    /// # Errors
    /// [`IndexError::Offset`] when the log ends elsewhere, or was packed before: then it is as
    /// it was. After [`IndexError::Unavailable`] nobody knows.
    async fn pack(&self, log: &LogName, packed: &PackedLog) -> Result<(), IndexError>;
}

/// Why the database did not do something.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The lease is not this session's, or has ended.
    #[error("this lease is not this session's, or it has ended")]
    LeaseLost,
    /// The log ends elsewhere.
    #[error("the log ends at {stored}")]
    Offset {
        /// There.
        stored: u64,
    },
    /// The database does not answer, or fails.
    #[error(transparent)]
    Unavailable(Box<dyn std::error::Error + Send + Sync>),
}

/// A piece of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins.
    pub start: u64,
    /// Bytes; more than none.
    pub length: u64,
    /// When they were stored: microseconds since 1970; 0 when nobody noted that.
    pub time: i64,
    /// What they are, or where.
    pub held: Held,
}

impl Piece {
    /// Where it ends.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.length
    }
}

/// How a piece of a log is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// As an object that holds just its bytes.
    Object {
        /// Its key, without the farm's prefix.
        key: String,
        /// SHA-256 of its bytes, in hexadecimal.
        sha256: String,
    },
    /// In the database.
    Text(Bytes),
    /// As an object with the whole log, packed: see [`crate::frames`].
    Packed {
        /// Its key, without the farm's prefix.
        key: String,
        /// Its own bytes.
        length: u64,
    },
}

/// A packed log, to be.
#[derive(Debug, Clone)]
pub struct PackedLog {
    /// Where the log ends.
    pub stored: u64,
    /// The object's key, without the farm's prefix.
    pub key: String,
    /// The object's own bytes.
    pub length: u64,
}

/// A piece of a log, to be.
#[derive(Debug, Clone)]
pub struct NewPiece {
    /// Where it begins.
    pub start: u64,
    /// Bytes; more than none.
    pub length: u64,
    /// SHA-256 of them, in hexadecimal.
    pub sha256: String,
    /// The key of the object that holds just these bytes.
    pub key: String,
    /// Whether the last of them ends no line.
    pub mid_line: bool,
}
