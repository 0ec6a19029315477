//! Packs the logs of jobs that have ended.
//!
//! Any server may do it, and two at once do no harm: packing a log again gives the same log, and
//! only one counts it. The duty spares the others the work.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kiln_core::farm::JobId;
use kiln_store::{
    StoreError,
    model::{Ended, Moment, Packed},
};
use tokio::time::Instant;

use super::duty;
use crate::state::State;

/// So long after its end nothing is added to a job's logs any more: no lease of it lives, and
/// the farm has written its last line.
const AFTER: Duration = Duration::from_mins(1);
/// Jobs that are looked at at once.
const AT_ONCE: u32 = 20;
/// A job whose logs could not be packed is left alone for so long.
const AGAIN: Duration = Duration::from_hours(1);
/// So long after its end they are given up, and stay as they are.
const TRIED: Duration = Duration::from_hours(24);
/// So many of those are remembered.
const REMEMBERED: usize = 10_000;

/// Jobs whose logs could not be packed, and when.
#[derive(Debug, Default)]
pub(crate) struct Failed(Mutex<HashMap<JobId, Instant>>);

impl Failed {
    fn is_lately(&self, job: JobId) -> bool {
        let failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(&job).is_some_and(|when| when.elapsed() < AGAIN)
    }

    fn note(&self, job: JobId) {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|_, when| when.elapsed() < AGAIN);
        if failed.len() < REMEMBERED {
            failed.insert(job, Instant::now());
        }
    }
}

/// All jobs that are to be packed now.
pub(super) async fn pass(state: &State) -> Result<(), StoreError> {
    let now = state.store.now().await?;
    let until = Moment(now.0 - i64::try_from(AFTER.as_micros()).unwrap_or(i64::MAX));
    let mut last = None;
    while !*state.stopping.borrow() {
        let jobs = state.store.to_pack(until, last, AT_ONCE).await?;
        let Some(latest) = jobs.last() else {
            return Ok(());
        };
        last = Some((latest.ended, latest.job));
        let mut left = jobs;
        left.retain(|job| !state.unpacked.is_lately(job.job));
        if left.is_empty() {
            continue;
        }
        if !duty(state, "pack").await? {
            return Ok(());
        }
        let mut packed = Vec::new();
        for job in &left {
            packed.extend(pack(state, job, now).await);
        }
        state.store.packed(&packed).await?;
        state.metrics.packed.inc_by(packed.len() as u64);
    }
    Ok(())
}

/// Packs the logs of a job. One that can't be packed counts as it is, once that was tried for
/// long enough: what the job keeps is removed in its time all the same.
async fn pack(state: &State, job: &Ended, now: Moment) -> Option<Packed> {
    let tried = now.0.saturating_sub(job.ended.0) > i64::try_from(TRIED.as_micros()).ok()?;
    let mut logs = 0;
    for log in &job.logs {
        let packed = match state.objects.pack(log).await {
            Err(error) if tried => {
                let job = job.job;
                tracing::error!(%job, "a log of job {job} can't be packed, and stays as it is: {error}");
                state.objects.stored(log).await
            }
            packed => packed,
        };
        match packed {
            Ok(bytes) => logs += bytes,
            Err(error) => {
                let job = job.job;
                tracing::warn!(%job, "the logs of job {job} can't be packed: {error}");
                state.unpacked.note(job);
                return None;
            }
        }
    }
    Some(Packed { job: job.job, logs })
}
