//! What the farm itself says in logs, and what follows a commit that it made.
//!
//! A log has a first line before anybody can see its job or task running: clients stop on
//! an empty one. When the farm ends a job, or an attempt at it, the log's last line says why.
//! Where logs are rows, both are written by the transactions that do this; else beside them.

use std::io;

use futures_util::future::join_all;
use kiln_core::{
    farm::{
        JobId,
        lines::{self, MARK},
    },
    job::JobStatus,
    manifest,
};
use kiln_objects::{AppendError, LogName, Objects};
use kiln_store::{
    Store, StoreError,
    model::{Changed, Given, Job, LeaseKey, Moment, Reported},
};
use tokio::sync::{Mutex, MutexGuard};

use crate::state::{Shared, State};

/// Writes the lines with which an attempt begins in its job's log, or gives them to the
/// transaction that commits the attempt, where logs are rows. Called before the commit.
pub(crate) async fn attempt(state: &State, given: &Given) -> io::Result<Option<String>> {
    let Given {
        job,
        attempt,
        worker,
        manifest,
    } = given;
    let log = LogName::Job(*job);
    let first = if *attempt == 1 {
        format!("{MARK} job {job}, on worker {worker}")
    } else {
        format!("{MARK} ---- attempt {attempt}, on worker {worker} ----")
    };
    let mut lines = vec![first];
    if *attempt == 1 {
        let missing = undelivered(manifest).into_iter();
        lines.extend(missing.map(|missing| format!("{MARK} {missing}")));
    }
    state.objects.lines_before_commit(&log, &lines).await
}

/// What a manifest asks for that this farm does not do.
fn undelivered(text: &str) -> Vec<&'static str> {
    let Ok(parsed) = manifest::parse(text.as_bytes()) else {
        // The worker says what is wrong with it.
        return Vec::new();
    };
    let mut lines = Vec::new();
    if !parsed.manifest.triggers().is_empty() {
        lines.push("this farm does not run triggers yet: no mail and no webhook will be sent");
    }
    if parsed.manifest.oauth.is_some() {
        lines.push("this farm gives no OAuth tokens yet: there is none in this job");
    }
    lines
}

/// Writes a task's first line under its lease, if its log has none. Gives where the log ends.
pub(crate) async fn task(
    state: &State,
    lease: LeaseKey<'_>,
    job: JobId,
    task: &str,
) -> Result<u64, AppendError> {
    let log = LogName::Task(job, task.to_owned());
    let line = format!("{MARK} task {task}");
    state.objects.begin(lease, &log, &line).await
}

/// Does what the farm decides about jobs. Where that ends some, or attempts at them, their
/// logs say why; they are counted, and who listens is told.
///
/// # Errors
/// Those of the decision.
pub(crate) async fn deciding(
    state: &State,
    decision: impl Future<Output = Result<Changed, StoreError>>,
) -> Result<Changed, StoreError> {
    let turn = state.lines.turn().await;
    let changed = decision.await?;
    join_all(changed.lines.iter().map(async |(log, text)| {
        if let Err(error) = state.objects.lines_after_commit(log, text).await {
            let job = log.job();
            tracing::error!(%job, "what happened to job {job} can't be said in its log: {error}");
        }
    }))
    .await;
    drop(turn);
    committed(state, &changed).await;
    Ok(changed)
}

/// The same for who may go away meanwhile: what was begun is done.
///
/// # Errors
/// As [`deciding`].
pub(crate) async fn deciding_for<F>(
    state: &Shared,
    decision: impl FnOnce(Store) -> F,
) -> Result<Changed, StoreError>
where
    F: Future<Output = Result<Changed, StoreError>> + Send + 'static,
{
    let (state, decision) = (state.clone(), decision(state.store.clone()));
    let decided = tokio::spawn(async move { deciding(&state, decision).await });
    decided
        .await
        .unwrap_or_else(|error| Err(StoreError::Unavailable(error.into())))
}

/// Whose turn it is to write lines beside transactions: where logs are files. Between the end
/// of an attempt and the line that says so no other attempt begins, and nobody takes the log
/// for complete.
#[derive(Debug)]
pub(crate) struct Lines(Option<Mutex<()>>);

impl Lines {
    pub(crate) fn of(objects: &Objects) -> Self {
        Self((!objects.are_indexed()).then(Mutex::default))
    }

    /// Waits for one's turn, which lasts until this is dropped.
    pub(crate) async fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        match &self.0 {
            Some(turn) => Some(turn.lock().await),
            None => None,
        }
    }
}

/// After a commit in which a job's worker said how it ended: counts, and tells who
/// listens.
pub(crate) fn ended(state: &State, status: JobStatus, reported: &Reported) {
    if let Some((started, ended)) = reported.ran {
        count(state, status, started, ended);
    }
    state.hints.changed(&reported.changed);
}

/// After a commit that ended jobs: counts, and tells who listens.
async fn committed(state: &State, changed: &Changed) {
    for job in &changed.ended {
        match state.store.job(*job).await {
            Ok(Some(job)) => {
                if let (Some(started), Some(ended)) = (job.started, job.ended) {
                    count(state, job.status, started, ended);
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%job, "job {job} is not counted: {error}"),
        }
    }
    state.hints.changed(changed);
}

/// The line that says why a job, or the last attempt at it, ended. A log that is empty when
/// its job is over is served as this line.
pub(crate) fn why(job: &Job) -> Option<String> {
    let reason = job.reason.as_ref()?;
    Some(lines::last(job.status, reason))
}

fn count(state: &State, status: JobStatus, Moment(started): Moment, Moment(ended): Moment) {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a histogram's buckets are wider"
    )]
    let seconds = (ended - started) as f64 / 1e6;
    state.metrics.ended(status.as_str(), seconds);
}
