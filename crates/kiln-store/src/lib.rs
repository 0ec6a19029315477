//! The farm's state in SQLite or PostgreSQL.
//!
//! One [`Store`] with one SQL text per operation for both; their few
//! differences are in `dialect.rs`. No decision is made here: what may follow what is
//! `kiln_core`'s, and each operation is one transaction.

pub mod model;
mod ops;

/// Where the state is.
#[derive(Debug, Clone)]
pub struct Config {
    /// `sqlite:///path/to/file`, `sqlite::memory:` or `postgres://…`.
    pub url: String,
    /// Whether to bring the schema up to date; without it an older one is refused.
    pub migrate: bool,
}

/// The farm's state.
#[derive(Debug, Clone)]
pub struct Store {}

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
#[error("{0}")]
pub struct OpenError(pub String);

impl Store {
    /// Opens it, and brings the schema up to date if told to.
    ///
    /// # Errors
    /// When it can't be reached, or is a newer kiln's.
    pub async fn open(_config: &Config) -> Result<Self, OpenError> {
        Err(OpenError("not built yet".into()))
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
