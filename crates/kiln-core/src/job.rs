//! The states of jobs and tasks, and the ways between them.
//!
//! ```text
//! job       pending ──► queued ◄──► running ──► success
//!              │           │           ├──────► failed
//!              │           │           ├──────► timeout
//!              └───────────┴───────────┴──────► cancelled
//!                          └──────────────────► failed
//!
//! task      pending ──► running ──► success
//!              │           └──────► failed
//!              └──────────────────► skipped
//! ```
//!
//! A running job goes back to the queue when its lease ended before a task began, and from the
//! queue to `failed` when that happened too often. A job that waits for something else than a
//! worker is `pending`. A task that runs when its job times out, is cancelled or loses its
//! worker has `failed`; those behind it are `skipped`.
//!
//! The names are those of the builds.sr.ht API, and **none may be added**: its clients stop on
//! values they don't know.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A change of state that is not in the diagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {what} cannot go from {from} to {to}")]
pub struct IllegalTransition {
    /// `job` or `task`.
    pub what: &'static str,
    /// The present state.
    pub from: &'static str,
    /// The state asked for.
    pub to: &'static str,
}

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Submitted, and waiting for something else than a worker.
    Pending,
    /// Waiting for a worker.
    Queued,
    /// A worker has it.
    Running,
    /// Every task that ran succeeded.
    Success,
    /// A task failed, or the job could not be run.
    Failed,
    /// It took longer than it may.
    Timeout,
    /// Somebody stopped it.
    Cancelled,
}

impl JobStatus {
    /// Every state, in the order of the diagram.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Queued,
        Self::Running,
        Self::Success,
        Self::Failed,
        Self::Timeout,
        Self::Cancelled,
    ];

    /// The name in manifests, databases and APIs, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the job has ended: nothing leaves such a state.
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Success | Self::Failed | Self::Timeout | Self::Cancelled
        )
    }

    /// Goes to another state.
    ///
    /// # Errors
    /// When the diagram has no such way. No state leads to itself.
    pub fn transition(self, to: Self) -> Result<Self, IllegalTransition> {
        use JobStatus::{Cancelled, Failed, Pending, Queued, Running, Success, Timeout};
        match (self, to) {
            (Pending, Queued | Cancelled)
            | (Queued, Running | Failed | Cancelled)
            | (Running, Queued | Success | Failed | Timeout | Cancelled) => Ok(to),
            _ => Err(IllegalTransition {
                what: "job",
                from: self.as_str(),
                to: to.as_str(),
            }),
        }
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskStatus {
    /// Not begun.
    Pending,
    /// Its script runs.
    Running,
    /// Its script ended well, or called `complete-build`.
    Success,
    /// Its script ended badly, or was stopped.
    Failed,
    /// It will not run any more.
    Skipped,
}

impl TaskStatus {
    /// Every state, in the order of the diagram.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Running,
        Self::Success,
        Self::Failed,
        Self::Skipped,
    ];

    /// The name in databases and APIs, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// Whether the task has ended: nothing leaves such a state.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::Skipped)
    }

    /// Where its job's end leads it: to what the worker said, where that is an end. What has
    /// ended stays.
    #[must_use]
    pub fn at_end(self, said: Option<Self>) -> Self {
        if self.is_terminal() {
            return self;
        }
        // Its start may not have been told, or not yet.
        let ran = self == Self::Running;
        match said.filter(|said| said.is_terminal()) {
            Some(Self::Skipped) | None if ran => Self::Failed,
            Some(said) => said,
            None => Self::Skipped,
        }
    }

    /// Goes to another state.
    ///
    /// # Errors
    /// When the diagram has no such way. No state leads to itself.
    pub fn transition(self, to: Self) -> Result<Self, IllegalTransition> {
        use TaskStatus::{Failed, Pending, Running, Skipped, Success};
        match (self, to) {
            (Pending, Running | Skipped) | (Running, Success | Failed) => Ok(to),
            _ => Err(IllegalTransition {
                what: "task",
                from: self.as_str(),
                to: to.as_str(),
            }),
        }
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Goes where each step asks to go, and stays where that is not allowed.
    fn walk_job(steps: &[JobStatus]) -> Vec<JobStatus> {
        let mut path = vec![JobStatus::Pending];
        for &to in steps {
            let now = path[path.len() - 1];
            path.push(now.transition(to).unwrap_or(now));
        }
        path
    }

    proptest! {
        #[test]
        fn a_job_never_leaves_a_terminal_state(
            steps in prop::collection::vec(prop::sample::select(JobStatus::ALL.to_vec()), 0..40)
        ) {
            let path = walk_job(&steps);
            if let Some(end) = path.iter().position(|s| s.is_terminal()) {
                prop_assert!(path[end..].iter().all(|s| *s == path[end]));
            }
        }

        #[test]
        fn a_job_succeeds_only_after_it_ran(
            steps in prop::collection::vec(prop::sample::select(JobStatus::ALL.to_vec()), 0..40)
        ) {
            let path = walk_job(&steps);
            for pair in path.windows(2).filter(|p| p[0] != p[1]) {
                if matches!(pair[1], JobStatus::Success | JobStatus::Timeout) {
                    prop_assert_eq!(pair[0], JobStatus::Running);
                }
            }
        }
    }

    #[test]
    fn a_task_never_leaves_a_terminal_state_and_every_other_state_can_end() {
        for from in TaskStatus::ALL {
            let ways = TaskStatus::ALL
                .iter()
                .filter(|to| from.transition(**to).is_ok());
            assert_eq!(ways.count() == 0, from.is_terminal(), "{from}");
        }
    }

    #[test]
    fn at_its_jobs_end_a_task_ends_and_what_has_ended_stays() {
        let said = TaskStatus::ALL.map(Some).into_iter().chain([None]);
        for (from, said) in TaskStatus::ALL
            .into_iter()
            .flat_map(|from| said.clone().map(move |said| (from, said)))
        {
            let to = from.at_end(said);
            assert!(to.is_terminal(), "{from} {said:?}");
            assert!(!from.is_terminal() || to == from, "{from} {said:?}");
            let ran = from == TaskStatus::Running;
            assert!(!ran || to != TaskStatus::Skipped, "{said:?}");
        }
    }

    #[test]
    fn every_unfinished_job_can_be_cancelled() {
        for from in JobStatus::ALL {
            let cancelled = from.transition(JobStatus::Cancelled);
            assert_eq!(cancelled.is_ok(), !from.is_terminal(), "{from}");
        }
    }

    #[test]
    fn the_names_are_those_of_the_api() {
        for status in JobStatus::ALL {
            let json = serde_json::to_value(status).expect("plain");
            assert_eq!(json, status.as_str());
        }
        for status in TaskStatus::ALL {
            let json = serde_json::to_value(status).expect("plain");
            assert_eq!(json, status.as_str());
        }
    }

    #[test]
    fn a_refused_transition_says_what_was_asked() {
        let error = JobStatus::Success.transition(JobStatus::Running);
        let text = error.expect_err("terminal").to_string();
        assert_eq!(text, "a job cannot go from success to running");
    }
}
