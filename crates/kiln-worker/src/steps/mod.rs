//! The steps of a job, one file each, in the order in which they run.
//!
//! A step takes the [`Progress`] to tell what it does and the guest to do it
//! in. It tells nothing when the manifest has nothing for it.

mod artifacts;
mod overlay;
mod packages;
mod prepare;
mod repositories;
mod settings;
mod sources;
mod start;
mod tasks;

use kiln_vm::machine::Guest;

use crate::{Job, outcome::Failure, progress::Progress};

pub(crate) use prepare::prepare;
pub(crate) use start::guest_with_packages;

/// Runs all that runs in a guest which has the job's packages. Gives the sentence about an early end.
pub(crate) async fn in_guest(
    job: &Job,
    guest: &dyn Guest,
    progress: &mut Progress<'_>,
) -> Result<Option<String>, Failure> {
    settings::run(job, guest, progress).await?;
    sources::run(job, guest, progress).await?;
    progress.begun().await?;
    let early = tasks::run(job, guest, progress).await?;
    artifacts::run(job, guest, progress).await?;
    Ok(early)
}

/// Names for a sentence, which must stay one.
fn first_few(names: &[String]) -> String {
    const FEW: usize = 10;
    let shown = names[..names.len().min(FEW)].join(" ");
    match names.len().saturating_sub(FEW) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
