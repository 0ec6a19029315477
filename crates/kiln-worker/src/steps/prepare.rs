//! What can be seen to be wrong, or to be said, before there is a guest.

use kiln_core::manifest::SecretRef;

use crate::{Job, Step, outcome::Failure, progress::Progress};

/// The longest word for a package manager. Real ones are a line; the way into
/// the guest takes some more.
const MAX_WORD: usize = 4096;

/// Refuses jobs that lack a secret or ask for what no package manager could be
/// told; warns of what only a farm can do.
pub(crate) async fn prepare(job: &Job, progress: &mut Progress<'_>) -> Result<(), Failure> {
    if job.manifest.oauth.is_some() {
        let message = "oauth: only a farm can grant a token; OAUTH2_TOKEN is not set";
        progress.warn(message).await?;
    }
    if !job.manifest.triggers().is_empty() {
        let message = "triggers: only a farm sends them; nothing is sent at the end of this job";
        progress.warn(message).await?;
    }
    if let Some(reason) = too_long(job) {
        return Err(Failure::step(Step::Prepare, reason));
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

/// What is wrong with a word that is too long for the image's scripts.
fn too_long(job: &Job) -> Option<String> {
    let packages = job.manifest.packages().iter();
    let packages = packages.map(|name| ("a package's name", name));
    let repositories = job.manifest.repositories().iter();
    let repositories = repositories.flat_map(|repository| {
        [
            ("a repository's name", &repository.name),
            ("a repository's source", &repository.source),
        ]
    });
    let (what, word) = packages
        .chain(repositories)
        .find(|(_, word)| word.len() > MAX_WORD)?;
    Some(format!(
        "{what} has {} bytes and may have {MAX_WORD}",
        word.len()
    ))
}
