//! The supervisor: one for each job, from its preparation to the end of its
//! guest.

use async_trait::async_trait;
use kiln_vm::machine::{Guest, Machine};
use tokio::sync::watch;

use crate::{Cause, Job, Outcome, Reporter, outcome::Failure, progress::Progress, steps};

/// What happens to a guest when its job has ended.
#[async_trait]
pub trait Hold: Send + Sync {
    /// Called once, after the end was reported, when there still is a guest;
    /// it is stopped when this returns. Neither the job's deadline nor its
    /// cancel apply; the future is dropped when the guest goes. Not called for
    /// a job that was cancelled.
    async fn hold(&self, guest: &dyn Guest, outcome: &Outcome);
}

/// Guests are stopped at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHold;

#[async_trait]
impl Hold for NoHold {
    async fn hold(&self, _guest: &dyn Guest, _outcome: &Outcome) {}
}

/// Runs a job to its end and stops its guest, whatever happens.
///
/// The job is cancelled when `cancel` becomes true; it can't be any more when
/// the sender is dropped. What is in `job.guest.dir` is the caller's to remove.
///
/// Dropping the future kills the guest; the reporter is told nothing then.
pub async fn run(
    machine: &dyn Machine,
    job: &Job,
    reporter: &dyn Reporter,
    hold: &dyn Hold,
    cancel: watch::Receiver<bool>,
) -> Outcome {
    let mut progress = Progress::new(job, reporter);
    let mut guest = None;
    let ended = tokio::select! {
        biased;
        () = cancelled(cancel) => Err(Failure::Cancelled),
        () = tokio::time::sleep(job.deadline) => Err(Failure::Timeout(job.deadline)),
        ended = drive(machine, job, &mut progress, &mut guest) => ended,
    };
    let ended = ended.map_err(|failure| blame(failure, job, guest.as_deref()));
    if let Err(failure) = &ended {
        let operator = failure.operator();
        tracing::info!(
            job = job.id,
            ?operator,
            "job {}: {}",
            job.id,
            failure.reason()
        );
    }
    let outcome = progress.finish(ended).await;
    if let Some(guest) = guest {
        if outcome.cause != Cause::Cancelled {
            tokio::select! {
                () = hold.hold(guest.as_ref(), &outcome) => {}
                _ = guest.gone() => {}
            }
        }
        guest.stop().await;
    }
    outcome
}

/// What fails in a guest that its host had no space for is the host's failure;
/// in one that wrote more than it may, the job's.
fn blame(failure: Failure, job: &Job, guest: Option<&dyn Guest>) -> Failure {
    let full = guest.is_some_and(Guest::disk_full);
    let limit = guest.is_some_and(Guest::disk_limit_reached);
    match failure {
        Failure::Task { .. } | Failure::Step { .. } | Failure::Guest { .. } if full => {
            Failure::Host {
                reason: format!(
                    "{}; the host had no disk space left for what the guest wrote",
                    failure.reason()
                ),
                error: std::io::ErrorKind::StorageFull.into(),
            }
        }
        Failure::Task { .. } | Failure::Step { .. } | Failure::Guest { .. } if limit => {
            Failure::DiskLimit {
                failure: Box::new(failure),
                mib: job.guest.disk_mib,
            }
        }
        other => other,
    }
}

/// Everything that the deadline and a cancel interrupt.
async fn drive(
    machine: &dyn Machine,
    job: &Job,
    progress: &mut Progress<'_>,
    guest: &mut Option<Box<dyn Guest>>,
) -> Result<Option<String>, Failure> {
    progress.job_begins(job).await?;
    steps::prepare(job, progress).await?;
    let guest = steps::guest_with_packages(machine, job, progress, guest).await?;
    steps::in_guest(job, guest, progress).await
}

async fn cancelled(mut cancel: watch::Receiver<bool>) {
    if cancel.wait_for(|cancelled| *cancelled).await.is_err() {
        std::future::pending::<()>().await;
    }
}
