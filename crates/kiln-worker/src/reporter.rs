//! Who is told what a job does.

use std::fmt;

use async_trait::async_trait;

use crate::Event;

/// Takes a job's events and logs as they happen: a run folder today, a lease
/// over the network on a farm.
///
/// A call's future is dropped when the job's deadline passes or it is cancelled:
/// an append may then have been taken in part. Later ones come after it.
///
/// Calls come one after the other. A call that takes long holds the job up,
/// the guest's output included, so nothing is ever queued in memory.
#[async_trait]
pub trait Reporter: Send + Sync {
    /// Takes an event.
    ///
    /// # Errors
    /// [`ReportError`] ends the job.
    async fn event(&self, event: Event) -> Result<(), ReportError>;

    /// Adds these bytes to a log. They are never empty and come in order.
    ///
    /// # Errors
    /// [`ReportError`] ends the job.
    async fn append(&self, log: &LogId, bytes: &[u8]) -> Result<(), ReportError>;

    /// Adds a line of kiln's own, for whoever must keep room for those.
    ///
    /// # Errors
    /// [`ReportError`] ends the job.
    async fn say(&self, log: &LogId, line: &[u8]) -> Result<(), ReportError> {
        self.append(log, line).await
    }

    /// Adds a line of kiln's own that repeats what an event tells: for whoever
    /// shows events and needs it only once.
    ///
    /// # Errors
    /// [`ReportError`] ends the job.
    async fn narrate(&self, log: &LogId, line: &[u8]) -> Result<(), ReportError> {
        self.say(log, line).await
    }

    /// Called once, before the first task starts, and only when everything
    /// before succeeded. Once this has returned the job may have had effects
    /// on the world and must not be run again on its own.
    ///
    /// # Errors
    /// [`ReportError`]: no task is started.
    async fn begun(&self) -> Result<(), ReportError>;
}

/// One of a job's logs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogId {
    /// The job's own: what its steps say.
    Job,
    /// The task's of this name.
    Task(String),
}

impl LogId {
    /// The task's name.
    #[must_use]
    pub fn task(&self) -> Option<&str> {
        match self {
            Self::Job => None,
            Self::Task(name) => Some(name),
        }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job => f.write_str("log"),
            Self::Task(name) => write!(f, "{name}/log"),
        }
    }
}

/// Why a report was not taken. `Display` is for the job's owner and names
/// nothing of the host; the source is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The report could not be stored.
    #[error("the host could not store the job's log{}", no_space(.0))]
    Io(#[from] std::io::Error),
    /// The job is not this worker's any more.
    #[error("this worker lost the job")]
    Refused,
    /// The farm will never take it; why.
    #[error("the farm did not take a report: {0}")]
    Farm(String),
}

fn no_space(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            ": no space is left on it"
        }
        _ => "",
    }
}
