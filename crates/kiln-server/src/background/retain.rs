//! Removes what ended jobs keep too long, or too much of; and rows that nobody needs.
//!
//! The rows go first, and with them what was kept becomes garbage, which is removed after that.

use std::time::Duration;

use kiln_core::farm::JobId;
use kiln_store::{
    StoreError,
    model::{Moment, Removal, What},
};

use super::{duty, sweep};
use crate::state::State;

/// Jobs, or objects, that are removed at once.
const AT_ONCE: u32 = 50;
/// Rows of no use are kept so long: sessions that never had a job, keys of submissions,
/// events of the outbox.
const ROWS: Duration = Duration::from_hours(7 * 24);

/// Removes what is too old, and then what is too much.
pub(super) async fn pass(state: &State) -> Result<(), StoreError> {
    if !duty(state, "retain").await? {
        return Ok(());
    }
    let retention = &state.config.retention;
    for (what, age) in [
        (What::Artifacts, retention.artifacts),
        (What::Logs, retention.logs),
    ] {
        if let Some(age) = age {
            old(state, what, age).await?;
        }
    }
    let Some(limit) = retention.of_owner else {
        return Ok(());
    };
    while !*state.stopping.borrow() {
        let beyond = state.store.kept_beyond(limit, AT_ONCE).await?;
        if beyond.is_empty() {
            break;
        }
        // Others want to write as well.
        for some in beyond.chunks(AT_ONCE as usize) {
            remove(state, some).await?;
        }
    }
    Ok(())
}

async fn old(state: &State, what: What, age: Duration) -> Result<(), StoreError> {
    let until = ago(state, age).await?;
    while !*state.stopping.borrow() {
        let jobs = state.store.kept_until(what, until, AT_ONCE).await?;
        if jobs.is_empty() {
            break;
        }
        let all: Vec<_> = jobs.into_iter().map(|job| (what, job)).collect();
        remove(state, &all).await?;
    }
    Ok(())
}

async fn ago(state: &State, age: Duration) -> Result<Moment, StoreError> {
    let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    Ok(Moment(state.store.now().await?.0.saturating_sub(age)))
}

async fn remove(state: &State, all: &[(What, JobId)]) -> Result<(), StoreError> {
    let removals: Vec<Removal> = all
        .iter()
        .map(|(what, job)| removal(state, *what, *job))
        .collect();
    let bytes = state.store.remove(&removals).await?;
    state.metrics.removed_bytes.inc_by(bytes);
    for (what, job) in all {
        let kind = match what {
            What::Artifacts => "artifacts",
            What::Logs => "logs",
        };
        tracing::info!(%job, "the {kind} of job {job} are removed: they were kept long enough");
    }
    Ok(())
}

fn removal(state: &State, what: What, job: JobId) -> Removal {
    let objects = match what {
        What::Artifacts => state.objects.artifacts_of(job),
        What::Logs => state.objects.logs_of(job),
    };
    Removal {
        job,
        what,
        objects: vec![objects],
    }
}

/// Removes objects that no row refers to any more.
pub(super) async fn collect(state: &State) -> Result<(), StoreError> {
    while !*state.stopping.borrow() {
        let garbage = state.store.garbage(AT_ONCE).await?;
        if garbage.is_empty() || !duty(state, "collect").await? {
            break;
        }
        sweep::is_ours(state).await?;
        let (mut gone, mut failed) = (Vec::new(), Vec::new());
        for object in garbage {
            match state.objects.remove(&object).await {
                Ok(()) => gone.push(object),
                Err(error) => {
                    tracing::warn!("{object} can't be removed now: {error}");
                    failed.push(object);
                }
            }
        }
        state.metrics.removed_objects.inc_by(gone.len() as u64);
        state.store.collected(&gone, &failed).await?;
    }
    Ok(())
}

/// Removes rows that nobody needs.
pub(super) async fn tidy(state: &State) -> Result<(), StoreError> {
    if !duty(state, "tidy").await? {
        return Ok(());
    }
    let before = ago(state, ROWS).await?;
    while !*state.stopping.borrow() && state.store.tidy(before).await? > 0 {}
    Ok(())
}
