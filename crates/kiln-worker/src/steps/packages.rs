//! Packages, all at once, by the image's `install`.

use kiln_vm::machine::Guest;

use super::first_few;
use crate::{Job, LogId, Step, outcome::Failure, progress::Progress};

pub(super) async fn run(
    job: &Job,
    guest: &dyn Guest,
    progress: &mut Progress<'_>,
) -> Result<(), Failure> {
    let packages = job.manifest.packages();
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    progress.step_begins(Step::Packages, &names).await?;
    let mut log = progress.logs.sink(&LogId::Job);
    let code = guest
        .install(packages, &mut log)
        .await
        .map_err(|error| Failure::guest(Step::Packages, error))?;
    if !code.success() {
        let names = first_few(packages);
        let reason = format!("the image could not install {names} (exit {})", code.0);
        return Err(Failure::step(Step::Packages, reason));
    }
    progress.step_ends().await
}
