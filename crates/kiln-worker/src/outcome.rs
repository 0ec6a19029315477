//! How a job ended and why.

use std::{error::Error, time::Duration};

use kiln_core::job::{JobStatus, TaskStatus};
use kiln_vm::machine::{Gone, GuestError, StartError};
use serde::Serialize;

use crate::{Artifact, ReportError, Step, progress::seconds};

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The job's terminal status.
    pub status: JobStatus,
    /// Why, for programs.
    pub cause: Cause,
    /// Why, for the owner: one sentence that names nothing of the host. Absent
    /// when the job simply succeeded.
    pub reason: Option<String>,
    /// What the operator of the host should know besides; may name paths.
    pub operator: Option<String>,
    /// Each task's terminal status, in the manifest's order.
    pub tasks: Vec<(String, TaskStatus)>,
    /// What was kept.
    pub artifacts: Vec<Artifact>,
}

/// Why a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "cause", rename_all = "kebab-case")]
pub enum Cause {
    /// It did everything it was to do, or said `complete-build`.
    Finished,
    /// A task's script failed.
    TaskFailed {
        /// The task.
        task: String,
        /// The script's exit status.
        exit: u32,
    },
    /// A step failed, for a reason that is the manifest's or the image's.
    StepFailed {
        /// The step.
        step: Step,
    },
    /// The guest went away or let nobody in any more.
    GuestLost,
    /// No guest came to be: the image or the host can't.
    NotStarted,
    /// The host failed.
    HostFailed,
    /// The reporter took no more.
    LogLost,
    /// The job took longer than it may.
    Timeout,
    /// Somebody cancelled it.
    Cancelled,
}

/// What ends a job before it has done everything.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A task's script failed.
    Task { task: String, exit: u32 },
    /// A step failed; the sentence begins with the step's name.
    Step { step: Step, reason: String },
    /// A guest failed; what was going on.
    Guest { during: String, error: GuestError },
    /// What failed in a guest that had reached the limit of its disk, in MiB
    /// where the job has one.
    DiskLimit {
        failure: Box<Failure>,
        mib: Option<u32>,
    },
    /// No guest came to be.
    Start(StartError),
    /// The host failed at something: a sentence for the owner and the error.
    Host {
        reason: String,
        error: std::io::Error,
    },
    /// The reporter took no more.
    Report(ReportError),
    /// This deadline passed.
    Timeout(Duration),
    /// Somebody cancelled the job.
    Cancelled,
}

impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Self {
        Self::Report(error)
    }
}

impl Failure {
    /// A step's failure, by a reason that says what and why.
    pub(crate) fn step(step: Step, reason: impl AsRef<str>) -> Self {
        Self::Step {
            step,
            reason: format!("{}: {}", step.name(), reason.as_ref()),
        }
    }

    /// A guest's failure in a step.
    pub(crate) fn guest(step: Step, error: GuestError) -> Self {
        Self::Guest {
            during: step.name().to_owned(),
            error,
        }
    }

    pub(crate) fn status(&self) -> JobStatus {
        match self {
            Self::Timeout(_) => JobStatus::Timeout,
            Self::Cancelled => JobStatus::Cancelled,
            _ => JobStatus::Failed,
        }
    }

    pub(crate) fn cause(&self) -> Cause {
        match self {
            Self::Task { task, exit } => Cause::TaskFailed {
                task: task.clone(),
                exit: *exit,
            },
            Self::Step { step, .. } => Cause::StepFailed { step: *step },
            Self::DiskLimit { failure, .. } => failure.cause(),
            Self::Guest { error, .. } => match error {
                GuestError::Host
                | GuestError::Gone(Gone::Crashed | Gone::OutOfMemory | Gone::Stopped) => {
                    Cause::HostFailed
                }
                GuestError::Output(_) => Cause::LogLost,
                _ => Cause::GuestLost,
            },
            Self::Start(_) => Cause::NotStarted,
            Self::Host { .. } => Cause::HostFailed,
            Self::Report(_) => Cause::LogLost,
            Self::Timeout(_) => Cause::Timeout,
            Self::Cancelled => Cause::Cancelled,
        }
    }

    /// The sentence for the job's owner.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Task { task, exit } => format!("task {task} failed with exit status {exit}"),
            Self::Step { reason, .. } | Self::Host { reason, .. } => reason.clone(),
            Self::Guest { during, error } => format!("{during}: {error}"),
            Self::DiskLimit { failure, mib } => {
                let limit = match mib {
                    Some(mib) => format!(", {mib} MiB: write less, or ask for more with --disk"),
                    None => ": write less".to_owned(),
                };
                format!(
                    "{}; the guest reached the limit of its disk{limit}",
                    failure.reason()
                )
            }
            Self::Start(error) => format!("start: {}", error.for_owner()),
            Self::Report(error) => error.to_string(),
            Self::Timeout(deadline) => {
                format!("the job took longer than the {} it may", seconds(*deadline))
            }
            Self::Cancelled => "the job was cancelled".into(),
        }
    }

    /// What the operator should know besides.
    pub(crate) fn operator(&self) -> Option<String> {
        match self {
            Self::Start(error) => Some(error.to_string()),
            Self::Host { error, .. } => Some(error.to_string()),
            Self::Report(error) => error.source().map(ToString::to_string),
            _ => None,
        }
    }
}
