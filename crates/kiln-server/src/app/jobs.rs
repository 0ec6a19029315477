//! Jobs: reading, starting, cancelling, changing.

use kiln_core::farm::{JobId, UserId, Visibility};
use kiln_store::model::{Artifact, Attempt, Job, JobPage, Source, Task, Waiting};

use super::{
    Actor, Error, Result, narrate,
    permission::{self, Deed, Wish},
};
use crate::state::{Shared, State};

/// Jobs on one page of a list.
pub(crate) const PAGE: u32 = 25;

/// A job of which this actor may have that.
///
/// # Errors
/// [`Error::Hidden`] when there is none, or it may not.
pub(crate) async fn find(state: &State, actor: &Actor, id: JobId, wish: Wish) -> Result<Job> {
    permission::may_want(actor, wish)?;
    let job = state.store.job(id).await?;
    let job = job.ok_or(Error::Hidden("job"))?;
    permission::may_have(actor, wish, (&job).into())?;
    Ok(job)
}

/// A page of a person's jobs, newest first: all of one's own, others' public ones.
///
/// # Errors
/// Without the grant.
pub(crate) async fn list(
    state: &State,
    actor: &Actor,
    owner: Option<UserId>,
    before: Option<JobId>,
) -> Result<JobPage> {
    permission::may(actor, Deed::ListJobs)?;
    let me = actor.person().ok_or(Error::Hidden("user"))?;
    let owner = owner.unwrap_or(me.id);
    let public_only = owner != me.id && !me.admin;
    let page = state.store.jobs_of(owner, before, PAGE, public_only);
    Ok(page.await?)
}

/// Queues a pending job.
///
/// # Errors
/// When it is not pending, or not this actor's.
pub(crate) async fn start(state: &State, actor: &Actor, id: JobId) -> Result<Job> {
    find(state, actor, id, Wish::Change).await?;
    let changed = state.store.start(id).await?;
    state.hints.changed(&changed);
    find(state, actor, id, Wish::Change).await
}

/// Cancels a job that has not ended: at once, also when its worker is gone.
///
/// # Errors
/// When it has ended, or is not this actor's.
pub(crate) async fn cancel(state: &Shared, actor: &Actor, id: JobId) -> Result<Job> {
    let job = find(state, actor, id, Wish::Change).await?;
    let who = match actor.person() {
        Some(user) if user.id != job.owner => format!("~{} cancelled it", user.username),
        _ => "its owner cancelled it".to_owned(),
    };
    if job.status.is_terminal() {
        let text = format!("job {id} has ended already: {}", job.status);
        return Err(Error::Conflict(text));
    }
    narrate::deciding_for(state, |store| async move { store.cancel(id, &who).await }).await?;
    find(state, actor, id, Wish::Change).await
}

/// Changes who sees a job.
///
/// # Errors
/// When it is not this actor's.
pub(crate) async fn update(
    state: &State,
    actor: &Actor,
    id: JobId,
    visibility: Visibility,
) -> Result<Job> {
    find(state, actor, id, Wish::Change).await?;
    Ok(state.store.set_visibility(id, visibility).await?)
}

/// The manifest's text of a job that the actor was given already.
///
/// # Errors
/// When the store fails.
pub(crate) async fn manifest(state: &State, job: &Job) -> Result<String> {
    match &job.manifest {
        Some(text) => Ok(text.clone()),
        None => Ok(state.store.manifest(job.id).await?),
    }
}

/// The tasks of these jobs, which the actor was given already.
///
/// # Errors
/// When the store fails.
pub(crate) async fn tasks(state: &State, jobs: &[JobId]) -> Result<Vec<Task>> {
    Ok(state.store.tasks(jobs).await?)
}

/// The artifacts of these jobs, which the actor was given already.
///
/// # Errors
/// When the store fails.
pub(crate) async fn artifacts(state: &State, jobs: &[JobId]) -> Result<Vec<Artifact>> {
    Ok(state.store.artifacts(jobs).await?)
}

/// The sources of a job that the actor was given already.
///
/// # Errors
/// When the store fails.
pub(crate) async fn sources(state: &State, job: JobId) -> Result<Vec<Source>> {
    Ok(state.store.sources(job).await?)
}

/// The attempts at a job that the actor was given already.
///
/// # Errors
/// When the store fails.
pub(crate) async fn attempts(state: &State, job: JobId) -> Result<Vec<Attempt>> {
    Ok(state.store.attempts(job).await?)
}

/// What waits and why: everything for an admin, else one's own.
///
/// # Errors
/// Without the grant.
pub(crate) async fn queue(state: &State, actor: &Actor, limit: u32) -> Result<Vec<Waiting>> {
    permission::may(actor, Deed::ListJobs)?;
    let me = actor.person().ok_or(Error::Hidden("user"))?;
    let owner = (!me.admin).then_some(me.id);
    Ok(state.store.waiting(owner, limit).await?)
}

/// Why a job waits, that the actor was given already.
///
/// # Errors
/// When the store fails.
pub(crate) async fn waits(state: &State, job: JobId) -> Result<Option<String>> {
    let reason = state.store.wait_reason(job).await?;
    Ok(reason.as_ref().map(super::waiting::sentence))
}
