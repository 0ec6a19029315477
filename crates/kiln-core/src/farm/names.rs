//! Names of what several crates speak about together.

use super::{Fence, JobId, SessionId, WorkerId};

/// One of a job's logs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogName {
    /// The job's own.
    Job(JobId),
    /// A task's; a name that the manifest's parser let through.
    Task(JobId, String),
}

impl LogName {
    /// Whose log it is.
    #[must_use]
    pub fn job(&self) -> JobId {
        match self {
            Self::Job(job) | Self::Task(job, _) => *job,
        }
    }

    /// The task's name; empty for the job's own log, as no task's is.
    #[must_use]
    pub fn task(&self) -> &str {
        match self {
            Self::Job(_) => "",
            Self::Task(_, task) => task,
        }
    }

    /// From [`Self::job`] and [`Self::task`].
    #[must_use]
    pub fn of(job: JobId, task: &str) -> Self {
        if task.is_empty() {
            Self::Job(job)
        } else {
            Self::Task(job, task.to_owned())
        }
    }
}

/// Under what something is reported. It is refused unless this very session of this very
/// worker has the lease and it has not ended.
#[derive(Debug, Clone, Copy)]
pub struct LeaseKey<'a> {
    /// Whose token was shown.
    pub worker: WorkerId,
    /// The session that reports.
    pub session: &'a SessionId,
    /// The lease.
    pub fence: Fence,
}
