//! Groups of jobs.

use kiln_core::farm::{GroupId, JobId, limits};
use kiln_store::model::{Group, Job, Trigger};

use super::{
    Actor, Error, Result, input, jobs,
    permission::{self, Deed, Wish},
};
use crate::state::State;

/// What somebody makes a group of.
#[derive(Debug)]
pub(crate) struct NewGroup {
    /// Pending jobs of its own that are in no group.
    pub(crate) jobs: Vec<JobId>,
    /// What happens when all have ended.
    pub(crate) triggers: Vec<Trigger>,
    /// Whether they are queued at once.
    pub(crate) execute: bool,
    /// A note.
    pub(crate) note: Option<String>,
}

/// Makes a group.
///
/// # Errors
/// When a job is not pending, in a group, or not this actor's.
pub(crate) async fn create(state: &State, actor: &Actor, group: NewGroup) -> Result<Group> {
    permission::may(actor, Deed::Submit)?;
    let owner = actor.person().ok_or(Error::Hidden("user"))?.id;
    if group.jobs.is_empty() {
        return Err(Error::invalid(
            "`jobIds` is empty; name at least one pending job",
        ));
    }
    input::at_most_entries("jobIds", group.jobs.len(), limits::GROUP)?;
    input::at_most_entries("triggers", group.triggers.len(), limits::TRIGGERS)?;
    let mut seen = std::collections::BTreeSet::new();
    if let Some(twice) = group.jobs.iter().find(|id| !seen.insert(**id)) {
        return Err(Error::invalid(format!("`jobIds` names {twice} twice")));
    }
    for id in &group.jobs {
        let job = jobs::find(state, actor, *id, Wish::Change).await?;
        if job.owner != owner {
            return Err(Error::Hidden("job"));
        }
    }
    let triggers = group.triggers.into_iter();
    let triggers: Vec<_> = triggers
        .map(|trigger| {
            Ok(Trigger {
                action: input::action(trigger.action)?,
                ..trigger
            })
        })
        .collect::<Result<_>>()?;
    let note = input::note(group.note)?;
    let made = state
        .store
        .add_group(
            owner,
            &group.jobs,
            note.as_deref(),
            &triggers,
            group.execute,
        )
        .await;
    let (made, changed) = made?;
    state.hints.changed(&changed);
    Ok(made)
}

/// Queues the pending jobs of a group.
///
/// # Errors
/// When there is none, or it is not this actor's.
pub(crate) async fn start(state: &State, actor: &Actor, id: GroupId) -> Result<Group> {
    permission::may(actor, Deed::Submit)?;
    let group = state.store.group(id).await?.ok_or(Error::Hidden("group"))?;
    if !permission::owns(actor, group.owner) {
        return Err(Error::Hidden("group"));
    }
    let changed = state.store.start_group(id).await?;
    state.hints.changed(&changed);
    Ok(group)
}

/// The group of a job that the actor was given already.
///
/// # Errors
/// When the store fails.
pub(crate) async fn of(state: &State, id: GroupId) -> Result<Option<Group>> {
    Ok(state.store.group(id).await?)
}

/// What happens when a group has ended, for its owner; nothing for others.
pub(crate) fn triggers<'a>(actor: &Actor, group: &'a Group) -> &'a [Trigger] {
    if permission::owns(actor, group.owner) {
        &group.triggers
    } else {
        &[]
    }
}

/// The jobs of a group that this actor may read.
///
/// # Errors
/// When the store fails.
pub(crate) async fn jobs_of(state: &State, actor: &Actor, id: GroupId) -> Result<Vec<Job>> {
    let mut jobs = state.store.group_jobs(id).await?;
    jobs.retain(|job| permission::may_have(actor, Wish::Read, job.into()).is_ok());
    Ok(jobs)
}
