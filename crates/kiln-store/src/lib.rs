//! The farm's state in SQLite or PostgreSQL.
//!
//! One [`Store`] with one SQL text per operation for both; their few
//! differences are in `dialect.rs`. No decision is made here: what may follow what is
//! `kiln_core`'s, and each operation is one transaction.
//!
//! ```text
//! ops/            one file for each kind of operation
//!   moves.rs      one job's or task's way to another status
//!   ledger.rs     what many reports change, read at once and written at once
//!   counts.rs     what moving many jobs counts and tells, written at once
//! tx.rs           a transaction: one writer at a time, the database's clock
//! group.rs        many operations in one transaction
//! rows.rs         rows ↔ model.rs
//! pool.rs         connections, and how long anybody waits for one
//! breaker.rs      whether the database is there
//! dialect.rs      SQLite, PostgreSQL
//! ```
//!
//! What writes is one at a time: with SQLite by its own lock, with PostgreSQL by an
//! advisory lock, which all servers of a farm share. So an operation sees what it
//! decides about as it will be when it commits. Only appends to logs go on beside others, and
//! lock the rows that they decide by. A commit is on disk before the
//! operation returns.

mod breaker;
mod dialect;
mod group;
mod migrate;
pub mod model;
mod open;
mod ops;
mod pool;
mod rows;
#[cfg(feature = "testing")]
pub mod testing;
pub mod token;
mod tx;

use std::sync::Arc;

use kiln_core::farm::attempt;
use tokio::sync::{Mutex, Semaphore};

pub use breaker::is_away;
pub use open::CONNECTIONS;
pub use ops::Restored;

use dialect::Engine;
use pool::Pool;

/// Where the state is.
#[derive(Debug, Clone)]
pub struct Config {
    /// `sqlite:///path/to/file`, `sqlite::memory:` or `postgres://…`.
    pub url: String,
    /// Whether to bring the schema up to date; without it an older one is refused.
    pub migrate: bool,
}

/// The farm's state. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: Pool,
    engine: Engine,
    /// Writers of this process queue here, in order, where the database would let
    /// them poll.
    writer: Arc<Mutex<()>>,
    /// For those that write beside it.
    beside: Arc<Semaphore>,
    /// Where operations wait of which many are done in one transaction.
    grouped: group::Queue,
}

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such thing.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Something of that name is there, or it is in another state.
    #[error("{0}")]
    Conflict(String),
    /// The lease is not this session's, or has ended.
    #[error("this lease is not this session's, or it has ended")]
    LeaseLost,
    /// The database does not answer, or fails.
    #[error("the database failed: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a store can't be opened. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database does not answer, or is just starting: later it may.
    #[error("{0}")]
    Away(String),
    /// Nothing changes that by itself.
    #[error("{0}")]
    Wrong(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error.as_database_error() {
            Some(database) if database.is_unique_violation() => {
                Self::Conflict("something of that name is there already".into())
            }
            Some(database) if database.is_foreign_key_violation() => {
                Self::Conflict("this names something that is not there".into())
            }
            Some(database) if Engine::no_text(database) => {
                Self::Conflict("a text has a character that can't be stored".into())
            }
            _ => Self::Unavailable(error.into()),
        }
    }
}

impl From<kiln_core::job::IllegalTransition> for StoreError {
    fn from(error: kiln_core::job::IllegalTransition) -> Self {
        Self::Conflict(error.to_string())
    }
}

impl From<attempt::Refused> for StoreError {
    fn from(error: attempt::Refused) -> Self {
        match error {
            attempt::Refused::Lost => Self::LeaseLost,
            error => Self::Conflict(error.to_string()),
        }
    }
}

impl Store {
    /// Whether the database answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").fetch_one(&self.pool).await?;
        Ok(())
    }
}
