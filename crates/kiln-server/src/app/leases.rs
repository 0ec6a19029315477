//! What workers report under their leases. Every report may be repeated.

use std::io;

use bytes::Bytes;
use kiln_core::{farm::JobId, job::TaskStatus, manifest};
use kiln_objects::{AppendError, LogName, PutError, Room};
use kiln_store::{
    StoreError,
    model::{Deed, Lease, LeaseKey, NewArtifact},
};
use kiln_wire::report::{End, Event, Return};
use tokio::io::AsyncRead;

use super::narrate;
use crate::{
    metrics::Image,
    state::{Shared, State},
};

/// A reason, in bytes. What is over is cut: a job's end is not refused for it.
const REASON: usize = 1024;
/// A digest of an image, in bytes.
const DIGEST: usize = 128;
/// The longest name of a commit: SHA-256 in hexadecimal.
const COMMIT: usize = 64;

/// Why a report is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    /// The lease is not this session's, or has ended.
    #[error("this lease is not this session's, or it has ended: its guest must go")]
    LeaseLost,
    /// The log ends elsewhere.
    #[error("the log ends at {stored}")]
    Offset {
        /// There.
        stored: u64,
    },
    /// It can't be true, whenever it is sent.
    #[error("{0}")]
    Invalid(String),
    /// It is more than is taken.
    #[error("{0}")]
    TooLarge(String),
    /// It did not come, or too slowly: it may be sent again.
    #[error("{0}")]
    Slow(String),
    /// There is no room for it now.
    #[error("the server has no room for it now")]
    StorageFull,
    /// The server can't now; why is for its operator.
    #[error("the server can't take it now")]
    Unavailable(#[source] anyhow::Error),
}

type Result<T> = std::result::Result<T, ReportError>;

impl From<StoreError> for ReportError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::LeaseLost => Self::LeaseLost,
            StoreError::NotFound(_) | StoreError::Conflict(_) => Self::Invalid(error.to_string()),
            StoreError::Unavailable(_) => Self::Unavailable(error.into()),
        }
    }
}

impl From<io::Error> for ReportError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::StorageFull,
            io::ErrorKind::InvalidInput => Self::Invalid(error.to_string()),
            _ => Self::Unavailable(error.into()),
        }
    }
}

impl From<AppendError> for ReportError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::LeaseLost => Self::LeaseLost,
            AppendError::Offset { stored } => Self::Offset { stored },
            AppendError::NotBegun => invalid("this task has not been told to run"),
            AppendError::Io(error) => error.into(),
        }
    }
}

impl From<PutError> for ReportError {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Different(text) => Self::Invalid(text),
            PutError::Broken(_) => Self::Slow(error.to_string()),
            PutError::Io(error) => error.into(),
        }
    }
}

fn invalid(text: impl Into<String>) -> ReportError {
    ReportError::Invalid(text.into())
}

/// The lease, if it is this session's and has not ended.
async fn lease(state: &State, key: LeaseKey<'_>) -> Result<Lease> {
    let lease = state.store.lease(key.worker, key.session, key.fence);
    lease.await?.ok_or(ReportError::LeaseLost)
}

/// A task may start when this has returned.
pub(crate) async fn begun(state: &State, key: LeaseKey<'_>) -> Result<()> {
    let changed = state.store.begun(key).await?;
    state.hints.changed(&changed);
    Ok(())
}

/// Something happened in the job. Of a task that runs it gives where the task's log ends.
pub(crate) async fn event(state: &State, key: LeaseKey<'_>, event: Event) -> Result<Option<u64>> {
    match event {
        Event::Task {
            task,
            status: TaskStatus::Running,
        } => return runs(state, key, &task).await.map(Some),
        Event::Task { task, status } => {
            let changed = state.store.set_task(key, &task, status).await?;
            state.hints.changed(&changed);
        }
        Event::Source { index, commit } => source(state, key, index, &commit).await?,
        Event::Started { digest, settle_ms } => started(state, key, &digest, settle_ms).await?,
    }
    Ok(None)
}

/// A task runs: its log begins before anybody can see that.
async fn runs(state: &State, key: LeaseKey<'_>, task: &str) -> Result<u64> {
    let job = state.store.may_run(key, task).await?;
    let stored = narrate::task(state, key, job, task).await?;
    let running = state.store.set_task(key, task, TaskStatus::Running);
    state.hints.changed(&running.await?);
    Ok(stored)
}

async fn source(state: &State, key: LeaseKey<'_>, index: u32, commit: &str) -> Result<()> {
    let hexadecimal = commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hexadecimal || !(1..=COMMIT).contains(&commit.len()) {
        let text = format!("a commit is 1 to {COMMIT} hexadecimal digits");
        return Err(invalid(text));
    }
    let lease = lease(state, key).await?;
    let parsed = parse(&lease)?;
    if index as usize >= parsed.sources().len() {
        return Err(invalid("this job has no such source"));
    }
    Ok(state.store.add_source(key, index, commit).await?)
}

async fn started(state: &State, key: LeaseKey<'_>, digest: &str, settle_ms: u64) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_".contains(&byte);
    if digest.is_empty() || digest.len() > DIGEST || !digest.bytes().all(plain) {
        return Err(invalid("that is no digest of an image"));
    }
    let lease = lease(state, key).await?;
    state.store.set_digest(key, digest).await?;
    let wanted = lease.job.requirements;
    let image = Image {
        image: wanted.image,
        arch: wanted.arch.unwrap_or_else(|| "default".to_owned()),
    };
    #[expect(
        clippy::cast_precision_loss,
        reason = "a histogram's buckets are wider"
    )]
    let seconds = settle_ms as f64 / 1e3;
    state.metrics.started(&image, seconds);
    Ok(())
}

fn parse(lease: &Lease) -> Result<manifest::Manifest> {
    let parsed = manifest::parse(lease.job.manifest.as_deref().unwrap_or_default().as_bytes());
    Ok(parsed
        .map_err(|_| invalid("this job has no manifest"))?
        .manifest)
}

/// Room for so many bytes of a log, before they are read.
pub(crate) async fn room(state: &State, bytes: usize) -> Result<Room> {
    let room = state.objects.room(bytes).await;
    room.map_err(|busy| ReportError::Unavailable(busy.into()))
}

/// Adds to a log. Gives where it ends, as it is stored.
pub(crate) async fn append(
    state: &State,
    key: LeaseKey<'_>,
    task: Option<String>,
    offset: u64,
    bytes: Bytes,
) -> Result<u64> {
    let job = state.holders.job(&state.store, key).await?;
    let name = match task {
        None => LogName::Job(job),
        Some(task) => LogName::Task(job, task),
    };
    let length = bytes.len() as u64;
    let stored = state.objects.append(key, &name, offset, bytes).await;
    if matches!(stored, Err(AppendError::LeaseLost)) {
        state.holders.forget(key.fence);
    }
    let stored = stored?;
    // What was there already was counted when it came.
    let new = length.min(stored.saturating_sub(offset));
    state.metrics.log_bytes.inc_by(new);
    if new > 0 {
        state.hints.grown(name);
    }
    Ok(stored)
}

/// Keeps an artifact while it comes in.
pub(crate) async fn artifact(
    state: &State,
    key: LeaseKey<'_>,
    artifact: &NewArtifact,
    body: &mut (dyn AsyncRead + Send + Unpin),
) -> Result<()> {
    let lease = lease(state, key).await?;
    let parsed = parse(&lease)?;
    let limit = state.config.artifact_limit;
    if artifact.size > limit {
        let text = format!("an artifact has at most {limit} bytes on this farm");
        return Err(ReportError::TooLarge(text));
    }
    if !is_sha256(&artifact.sha256) {
        return Err(invalid("`sha256` is 64 hexadecimal digits in lower case"));
    }
    let named = parsed.artifacts().get(artifact.index as usize);
    if named != Some(&artifact.path) {
        return Err(invalid("this job has no such artifact"));
    }
    if is_kept(state, lease.job.id, artifact).await? {
        return Ok(());
    }
    let job = lease.job.id;
    let put =
        state
            .objects
            .put_artifact(job, artifact.index, body, artifact.size, &artifact.sha256);
    put.await?;
    state.store.add_artifact(key, artifact).await?;
    Ok(())
}

/// Whether just this is kept already: it was sent before, and the answer was lost.
async fn is_kept(state: &State, job: JobId, new: &NewArtifact) -> Result<bool> {
    let kept = state.store.artifacts(&[job]).await?;
    let Some(kept) = kept.into_iter().find(|kept| kept.index == new.index) else {
        return Ok(false);
    };
    if (kept.size, &kept.sha256) == (new.size, &new.sha256) {
        return Ok(true);
    }
    Err(invalid("another artifact of this place is kept already"))
}

fn is_sha256(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 64 && text.bytes().all(digit)
}

/// The job has ended.
pub(crate) async fn end(state: &State, key: LeaseKey<'_>, end: End) -> Result<()> {
    if !end.status.is_terminal() {
        return Err(invalid(format!("a job does not end as {}", end.status)));
    }
    let reason = end.reason.as_deref().map(sentence);
    let deed = Deed::End {
        status: end.status,
        reason,
        tasks: end.tasks,
    };
    let reported = state.store.report(key, deed).await?;
    narrate::ended(state, end.status, &reported);
    Ok(())
}

/// The worker can't run the job.
pub(crate) async fn give_back(state: &Shared, key: LeaseKey<'_>, back: Return) -> Result<()> {
    if back.reason.trim().is_empty() {
        return Err(invalid("say why the job comes back"));
    }
    let reason = sentence(&back.reason);
    let (worker, session, fence) = (key.worker, key.session.clone(), key.fence);
    let given_back = narrate::deciding_for(state, |store| async move {
        let session = &session;
        let key = LeaseKey {
            worker,
            session,
            fence,
        };
        store.give_back(key, &reason, back.counts).await
    });
    given_back.await?;
    Ok(())
}

/// A reason as it is kept: the longest whole characters that fit, on one line. What no
/// database keeps, or a terminal would obey, is a space: no end is refused for it.
fn sentence(text: &str) -> String {
    let fits = &text[..text.floor_char_boundary(REASON)];
    fits.replace(char::is_control, " ")
}
