//! What the farm itself says in logs, and what follows a commit that it made.
//!
//! A log has a first line before anybody can see its job or task running: clients stop on
//! an empty one. When the farm ends a job, or an attempt at it, the log's last line says why.

use std::io;

use kiln_core::{
    farm::JobId,
    job::{JobStatus, TaskStatus},
    manifest,
};
use kiln_objects::{LogName, When};
use kiln_store::{
    StoreError,
    model::{Changed, Given, Job, Moment, Reported},
};

use crate::state::State;

/// What begins a line that is not the job's own.
const MARK: &str = "[kiln]";

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

/// Writes a task's first line, if its log has none.
pub(crate) async fn task(state: &State, job: JobId, task: &str) -> io::Result<()> {
    let log = LogName::Task(job, task.to_owned());
    let line = format!("{MARK} task {task}");
    state.objects.append_line(&log, &line, When::Empty).await?;
    Ok(())
}

/// After a commit in which the farm decided something about jobs: says in their logs
/// why, counts, and tells who listens.
pub(crate) async fn decided(state: &State, changed: &Changed) {
    for job in &jobs(changed) {
        if let Err(error) = say_why(state, *job).await {
            tracing::error!(%job, "what happened to job {job} can't be said in its log: {error:#}");
        }
    }
    committed(state, changed).await;
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

fn jobs(changed: &Changed) -> Vec<JobId> {
    let mut jobs: Vec<JobId> = changed.jobs.iter().chain(&changed.ended).copied().collect();
    jobs.sort_unstable();
    jobs.dedup();
    jobs
}

async fn say_why(state: &State, id: JobId) -> anyhow::Result<()> {
    let Some(job) = state.store.job(id).await? else {
        return Ok(());
    };
    let Some(line) = why(&job) else {
        return Ok(());
    };
    for name in open_logs(state, &job).await? {
        // An empty log is served as a sentence as soon as its job is over: it stays so.
        state.objects.append_line(&name, &line, When::Begun).await?;
    }
    Ok(())
}

/// The line that says why a job, or the last attempt at it, ended. A log that is empty when
/// its job is over is served as this line.
pub(crate) fn why(job: &Job) -> Option<String> {
    let reason = job.reason.as_ref()?;
    Some(if job.status.is_terminal() {
        format!("{MARK} the job ended as {}: {reason}", job.status)
    } else {
        format!("{MARK} this attempt ended: {reason}")
    })
}

/// The logs in which somebody may be reading: the job's, and those of the tasks that were
/// ended with it.
async fn open_logs(state: &State, job: &Job) -> Result<Vec<LogName>, StoreError> {
    let mut logs = vec![LogName::Job(job.id)];
    if job.status.is_terminal() {
        let tasks = state.store.tasks(&[job.id]).await?;
        let stopped = |status| status == TaskStatus::Failed;
        let stopped = tasks.into_iter().filter(|task| stopped(task.status));
        logs.extend(stopped.map(|task| LogName::Task(job.id, task.name)));
    }
    Ok(logs)
}

fn count(state: &State, status: JobStatus, Moment(started): Moment, Moment(ended): Moment) {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a histogram's buckets are wider"
    )]
    let seconds = (ended - started) as f64 / 1e6;
    state.metrics.ended(status.as_str(), seconds);
}
