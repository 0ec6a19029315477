//! Package repositories, by the image's `add_repository`, in the manifest's order.

use kiln_vm::machine::Guest;

use crate::{Job, LogId, Step, outcome::Failure, progress::Progress};

pub(super) async fn run(
    job: &Job,
    guest: &dyn Guest,
    progress: &mut Progress<'_>,
) -> Result<(), Failure> {
    let repositories = job.manifest.repositories();
    if repositories.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = repositories.iter().map(|r| r.name.as_str()).collect();
    progress
        .step_begins(Step::Repositories, &names.join(" "))
        .await?;
    for repository in repositories {
        let mut log = progress.logs.sink(&LogId::Job);
        let code = guest
            .add_repository(&repository.name, &repository.source, &mut log)
            .await
            .map_err(|error| Failure::guest(Step::Repositories, error))?;
        if !code.success() {
            let reason = format!(
                "the image could not add {} (exit {})",
                repository.name, code.0
            );
            return Err(Failure::step(Step::Repositories, reason));
        }
    }
    progress.step_ends().await
}
