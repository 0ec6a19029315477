//! Moving jobs and tasks along their diagrams, one by one. Where many are moved at once,
//! `submit`, `assign` and `ledger` write statuses too, and nothing else does.

use kiln_core::{
    farm::{Fence, GroupId, JobId, LogName, SessionId, attempt::Outcome, limits, lines},
    job::{JobStatus, TaskStatus},
};
use sqlx::{AssertSqlSafe, Row as _, any::AnyRow};

use super::{
    chunks::{self, When},
    counts,
};
use crate::{StoreError, dialect::each, model::Changed, rows, tx::Tx};

/// What moving a job needs to know of it.
pub(crate) struct Present {
    pub(crate) id: JobId,
    pub(crate) status: JobStatus,
    pub(crate) tries: u32,
    share: i64,
    class: i64,
    group: Option<GroupId>,
    needs_left: i64,
}

/// A job as it is now.
pub(crate) async fn present(tx: &mut Tx, id: JobId) -> Result<Present, StoreError> {
    let row = sqlx::query(
        "SELECT status, tries, share_id, class_id, group_id, needs_left FROM jobs WHERE id = $1",
    )
    .bind(i64::from(id.0))
    .fetch_optional(&mut **tx)
    .await?
    .ok_or(StoreError::NotFound("job"))?;
    let group: Option<i64> = row.try_get("group_id")?;
    Ok(Present {
        id,
        status: rows::job_status(&row)?,
        tries: rows::number(&row, "tries")?,
        share: row.try_get("share_id")?,
        class: row.try_get("class_id")?,
        group: group.and_then(|id| i32::try_from(id).ok()).map(GroupId),
        needs_left: row.try_get("needs_left")?,
    })
}

/// Moves a job, keeps the counts of its lane and share, and with its end ends what is
/// left of it: its tasks, and tells the outbox. With a reason its logs say why.
///
/// The lease of a job that was running must have ended before: see [`end_lease`].
pub(crate) async fn job(
    tx: &mut Tx,
    job: &Present,
    to: JobStatus,
    reason: Option<&str>,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    job.status.transition(to)?;
    let moved = sqlx::query(
        "UPDATE jobs SET status = $2, reason = $3, updated = $4,
            queued = CASE WHEN $2 = 'queued' THEN $4 ELSE queued END,
            since = CASE WHEN $2 = 'queued' THEN COALESCE(since, $4) ELSE since END,
            started = CASE WHEN $2 = 'running' THEN $4 ELSE started END,
            ended = $5
         WHERE id = $1 AND status = $6",
    )
    .bind(i64::from(job.id.0))
    .bind(to.as_str())
    .bind(reason)
    .bind(tx.now.0)
    .bind(to.is_terminal().then_some(tx.now.0))
    .bind(job.status.as_str())
    .execute(&mut **tx)
    .await?;
    if moved.rows_affected() != 1 {
        return Err(StoreError::Conflict("the job has changed meanwhile".into()));
    }
    count(tx, job, job.status, -1).await?;
    count(tx, job, to, 1).await?;
    // What comes back to the queue is never refused.
    if (job.status, to) == (JobStatus::Pending, JobStatus::Queued) {
        has_few_kinds(tx, job).await?;
    }
    let mut logs = vec![LogName::Job(job.id)];
    if to.is_terminal() {
        logs.extend(finish(tx, job).await?);
        changed.ended.push(job.id);
    }
    if let Some(reason) = reason {
        let line = lines::last(to, reason);
        let texts: Vec<_> = logs
            .into_iter()
            .map(|log| (log, format!("{line}\n")))
            .collect();
        // Where logs are files there is no row of one that has begun.
        chunks::add_texts(tx, &texts, When::Begun).await?;
        changed.lines.extend(texts);
    }
    changed.jobs.push(job.id);
    // What is queued wants a slot, what ran leaves one.
    changed.assign |= to == JobStatus::Queued || job.status == JobStatus::Running;
    Ok(())
}

/// Counts a job that comes into or leaves a state.
async fn count(tx: &mut Tx, job: &Present, status: JobStatus, by: i64) -> Result<(), StoreError> {
    match status {
        JobStatus::Queued if job.needs_left == 0 => {
            sqlx::query(
                "INSERT INTO lanes (class_id, share_id, queued) VALUES ($1, $2, 0)
                 ON CONFLICT (class_id, share_id) DO NOTHING",
            )
            .bind(job.class)
            .bind(job.share)
            .execute(&mut **tx)
            .await?;
            sqlx::query(
                "UPDATE lanes SET queued = queued + $3 WHERE class_id = $1 AND share_id = $2",
            )
            .bind(job.class)
            .bind(job.share)
            .bind(by)
            .execute(&mut **tx)
            .await?;
        }
        JobStatus::Running => {
            sqlx::query("UPDATE shares SET running = running + $2 WHERE id = $1")
                .bind(job.share)
                .bind(by)
                .execute(&mut **tx)
                .await?;
        }
        _ => {}
    }
    Ok(())
}

/// A pass looks at each lane that waits: nobody may make it look at any number of them.
async fn has_few_kinds(tx: &mut Tx, job: &Present) -> Result<(), StoreError> {
    let kinds: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM lanes WHERE share_id = $1 AND queued > 0")
            .bind(job.share)
            .fetch_one(&mut **tx)
            .await?;
    if kinds > i64::from(limits::KINDS) {
        return Err(StoreError::Conflict(format!(
            "jobs of {} kinds wait already, by image, architecture and labels; wait until some have ended",
            limits::KINDS
        )));
    }
    Ok(())
}

/// Ends what is left of a job; gives the logs of tasks that ran.
async fn finish(tx: &mut Tx, job: &Present) -> Result<Vec<LogName>, StoreError> {
    let mut stopped = Vec::new();
    for found in tasks(tx, job.id).await? {
        let end = found.status.at_end(None);
        if end == found.status {
            continue;
        }
        task(tx, &found, end).await?;
        if found.status == TaskStatus::Running {
            stopped.push(LogName::Task(job.id, found.name));
        }
    }
    counts::tell(tx, &[("job-ended", Some(job.id), None)]).await?;
    let Some(group) = job.group else {
        return Ok(stopped);
    };
    let left: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM jobs
         WHERE group_id = $1 AND status IN ('pending', 'queued', 'running')",
    )
    .bind(i64::from(group.0))
    .fetch_one(&mut **tx)
    .await?;
    if left == 0 {
        counts::tell(tx, &[("group-ended", None, Some(group))]).await?;
    }
    Ok(stopped)
}

/// A task as it is now.
pub(crate) struct PresentTask {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) status: TaskStatus,
}

/// The tasks of a job as they are now, in order.
pub(crate) async fn tasks(tx: &mut Tx, job: JobId) -> Result<Vec<PresentTask>, StoreError> {
    let rows = sqlx::query("SELECT id, name, status FROM tasks WHERE job_id = $1 ORDER BY place")
        .bind(i64::from(job.0))
        .fetch_all(&mut **tx)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(PresentTask {
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                status: rows::task_status(row)?,
            })
        })
        .collect()
}

/// Moves a task.
pub(crate) async fn task(
    tx: &mut Tx,
    task: &PresentTask,
    to: TaskStatus,
) -> Result<(), StoreError> {
    task.status.transition(to)?;
    let moved =
        sqlx::query("UPDATE tasks SET status = $2, updated = $3 WHERE id = $1 AND status = $4")
            .bind(task.id)
            .bind(to.as_str())
            .bind(tx.now.0)
            .bind(task.status.as_str())
            .execute(&mut **tx)
            .await?;
    if moved.rows_affected() != 1 {
        return Err(StoreError::Conflict(
            "the task has changed meanwhile".into(),
        ));
    }
    Ok(())
}

/// Waits for those who append under these leases, which are about to end: nobody does from
/// then on until the transaction has ended, and afterwards they are refused.
pub(crate) async fn alone(tx: &mut Tx, fences: &[i64]) -> Result<(), StoreError> {
    let found = each!(tx.engine,
        "SELECT a.id FROM" EACH "JOIN attempts a ON a.id = CAST(e.value AS BIGINT)");
    // Words of this crate alone.
    let text = AssertSqlSafe(format!("{found}{}", tx.engine.alone()));
    sqlx::query(text)
        .bind(rows::to_json(&fences)?)
        .fetch_all(&mut **tx)
        .await?;
    Ok(())
}

/// Ends a lease, if it has not ended.
pub(crate) async fn end_lease(
    tx: &mut Tx,
    fence: Fence,
    outcome: Outcome,
    reason: Option<&str>,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    alone(tx, &[fence.0]).await?;
    let row: Option<AnyRow> = sqlx::query(
        "UPDATE attempts SET ended = $2, outcome = $3, reason = $4
         WHERE id = $1 AND ended IS NULL RETURNING session_id",
    )
    .bind(fence.0)
    .bind(tx.now.0)
    .bind(outcome.as_str())
    .bind(reason)
    .fetch_optional(&mut **tx)
    .await?;
    let row = row.ok_or(StoreError::LeaseLost)?;
    let session: SessionId = rows::session_id(&row, "session_id")?;
    changed.sessions.push(session);
    Ok(())
}
