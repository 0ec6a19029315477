//! What can be seen to be wrong, or to be said, before there is a guest.

use kiln_core::manifest::SecretRef;

use crate::{Job, Step, outcome::Failure, progress::Progress};

/// Refuses jobs that lack a secret; warns of what only a farm can do.
pub(crate) async fn prepare(job: &Job, progress: &mut Progress<'_>) -> Result<(), Failure> {
    if job.manifest.oauth.is_some() {
        let message = "oauth: only a farm can grant a token; OAUTH2_TOKEN is not set";
        progress.warn(message).await?;
    }
    if !job.manifest.triggers().is_empty() {
        let message = "triggers: only a farm sends them; nothing is sent at the end of this job";
        progress.warn(message).await?;
    }
    let missing: Vec<&str> = job
        .manifest
        .secrets()
        .iter()
        .map(SecretRef::as_str)
        .filter(|name| job.secret(name).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::step(
        Step::Prepare,
        format!("this job was given no secret {}", missing.join(", ")),
    ))
}
