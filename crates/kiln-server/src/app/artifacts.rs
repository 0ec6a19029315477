//! Files that jobs made.

use kiln_core::farm::ArtifactId;
use kiln_objects::Reader;
use kiln_store::model::Artifact;

use super::{Actor, Error, Result, jobs, permission::Wish};
use crate::state::State;

/// The name that an artifact is saved under: the last part of its path.
pub(crate) fn file_name(artifact: &Artifact) -> &str {
    let path = artifact.path.trim_end_matches('/');
    path.rsplit('/').next().unwrap_or(path)
}

/// Finds an artifact by number and name.
///
/// # Errors
/// [`Error::Hidden`] when there is none, its bytes are gone, or it is not for this actor.
pub(crate) async fn find(
    state: &State,
    actor: &Actor,
    id: ArtifactId,
    name: &str,
) -> Result<Artifact> {
    let found = state.store.artifact(id).await?;
    let artifact = found.ok_or(Error::Hidden("artifact"))?;
    let job = jobs::find(state, actor, artifact.job, Wish::Artifact).await;
    job.map_err(|error| match error {
        Error::Hidden(_) => Error::Hidden("artifact"),
        error => error,
    })?;
    if artifact.pruned || file_name(&artifact) != name {
        return Err(Error::Hidden("artifact"));
    }
    Ok(artifact)
}

/// Its bytes [from, to).
///
/// # Errors
/// When the storage fails.
pub(crate) async fn read(state: &State, artifact: &Artifact, from: u64, to: u64) -> Result<Reader> {
    let (job, index) = (artifact.job, artifact.index);
    Ok(state.objects.artifact(job, index, from, to).await?)
}
