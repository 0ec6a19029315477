//! What a worker reports under a lease. Each may be repeated: the second time it
//! changes nothing.

use kiln_core::{
    farm::{ArtifactId, Fence, JobId, lease},
    job::{JobStatus, TaskStatus},
};
use sqlx::Row as _;

use super::moves::{self, Outcome};
use crate::{
    Store, StoreError,
    model::{Changed, LeaseKey, Moment, NewArtifact, TokenHash, Voice},
    rows,
    tx::{Tx, write},
};

/// A lease as its reports need it.
struct Held {
    job: JobId,
    begun: Option<Moment>,
    /// Which operation ended it, if it has ended.
    outcome: Option<String>,
}

impl Store {
    /// Keeps the hash of the token that this lease's guest is given.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn set_lease_token(&self, fence: Fence, hash: TokenHash) -> Result<(), StoreError> {
        write!(self, |tx| {
            let kept =
                sqlx::query("UPDATE attempts SET token = $2 WHERE id = $1 AND ended IS NULL")
                    .bind(fence.0)
                    .bind(rows::hex(hash))
                    .execute(&mut **tx)
                    .await?;
            if kept.rows_affected() == 0 {
                return Err(StoreError::LeaseLost);
            }
        })
    }

    /// The same for a lease that this voice of its session offers. Another voice's
    /// offer came later, and its token stays.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Conflict`] when another voice speaks now.
    pub async fn set_offers_token(
        &self,
        fence: Fence,
        hash: TokenHash,
        voice: Voice,
    ) -> Result<(), StoreError> {
        write!(self, |tx| {
            let row = sqlx::query(
                "SELECT s.voice FROM attempts a JOIN sessions s ON s.id = a.session_id
                 WHERE a.id = $1 AND a.ended IS NULL",
            )
            .bind(fence.0)
            .fetch_optional(&mut **tx)
            .await?
            .ok_or(StoreError::LeaseLost)?;
            if row.try_get::<i64, _>("voice")? != voice.0 {
                return Err(StoreError::Conflict(
                    "this session has another socket".into(),
                ));
            }
            sqlx::query("UPDATE attempts SET token = $2 WHERE id = $1")
                .bind(fence.0)
                .bind(rows::hex(hash))
                .execute(&mut **tx)
                .await?;
        })
    }

    /// Says under a lease that a task may start now.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn begun(&self, lease: LeaseKey<'_>) -> Result<Changed, StoreError> {
        write!(self, |tx| {
            let held = alive(tx, lease).await?;
            let mut changed = Changed::default();
            if held.begun.is_none() {
                sqlx::query("UPDATE attempts SET begun = $2 WHERE id = $1")
                    .bind(lease.fence.0)
                    .bind(tx.now.0)
                    .execute(&mut **tx)
                    .await?;
                changed.jobs.push(held.job);
            }
            changed
        })
    }

    /// Moves a task.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::NotFound`] for a task that the job
    /// has not; [`StoreError::Conflict`] for a way that is not in the diagram, and
    /// for one that runs although [`Store::begun`] was not said.
    pub async fn set_task(
        &self,
        lease: LeaseKey<'_>,
        task: &str,
        status: TaskStatus,
    ) -> Result<Changed, StoreError> {
        write!(self, |tx| {
            let held = alive(tx, lease).await?;
            let mut changed = Changed::default();
            let tasks = moves::tasks(tx, held.job).await?;
            let found = tasks
                .iter()
                .find(|found| found.name == task)
                .ok_or(StoreError::NotFound("task"))?;
            if found.status != status {
                if status == TaskStatus::Running && held.begun.is_none() {
                    return Err(StoreError::Conflict(
                        "no task may run before `begun` was said".into(),
                    ));
                }
                moves::task(tx, found, status).await?;
                changed.jobs.push(held.job);
            }
            changed
        })
    }

    /// Keeps what a source was cloned at.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn add_source(
        &self,
        lease: LeaseKey<'_>,
        index: u32,
        commit: &str,
    ) -> Result<(), StoreError> {
        write!(self, |tx| {
            let held = alive(tx, lease).await?;
            sqlx::query(
                "INSERT INTO sources (job_id, place, revision) VALUES ($1, $2, $3)
                 ON CONFLICT (job_id, place) DO UPDATE SET revision = $3",
            )
            .bind(i64::from(held.job.0))
            .bind(i64::from(index))
            .bind(commit)
            .execute(&mut **tx)
            .await?;
        })
    }

    /// Keeps which version of the image runs.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn set_digest(&self, lease: LeaseKey<'_>, digest: &str) -> Result<(), StoreError> {
        write!(self, |tx| {
            let held = alive(tx, lease).await?;
            sqlx::query("UPDATE jobs SET image_digest = $2 WHERE id = $1")
                .bind(i64::from(held.job.0))
                .bind(digest)
                .execute(&mut **tx)
                .await?;
        })
    }

    /// Keeps an artifact whose bytes are stored. One that is there already keeps its
    /// number.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn add_artifact(
        &self,
        lease: LeaseKey<'_>,
        artifact: &NewArtifact,
    ) -> Result<ArtifactId, StoreError> {
        write!(self, |tx| {
            let held = alive(tx, lease).await?;
            let row = sqlx::query(
                "INSERT INTO artifacts (job_id, place, path, size, sha256, created)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (job_id, place) DO UPDATE SET path = $3, size = $4, sha256 = $5
                 RETURNING id",
            )
            .bind(i64::from(held.job.0))
            .bind(i64::from(artifact.index))
            .bind(&artifact.path)
            .bind(rows::signed(artifact.size))
            .bind(&artifact.sha256)
            .bind(tx.now.0)
            .fetch_one(&mut **tx)
            .await?;
            ArtifactId(rows::number(&row, "id")?)
        })
    }

    /// Ends the attempt and its job. Tasks are moved as told first; those that have
    /// no terminal status after that get one.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Conflict`] when the status is no end.
    pub async fn end(
        &self,
        lease: LeaseKey<'_>,
        status: JobStatus,
        reason: Option<&str>,
        tasks: &[(String, TaskStatus)],
    ) -> Result<Changed, StoreError> {
        if !status.is_terminal() {
            return Err(StoreError::Conflict(format!(
                "a job does not end as {status}"
            )));
        }
        write!(self, |tx| {
            let held = held(tx, lease).await?;
            let job = moves::present(tx, held.job).await?;
            let mut changed = Changed::default();
            match held.outcome.as_deref() {
                None => {
                    end_tasks(tx, held.job, tasks).await?;
                    let outcome = Outcome::Ended;
                    moves::end_lease(tx, lease.fence, outcome, reason, &mut changed).await?;
                    moves::job(tx, &job, status, reason, &mut changed).await?;
                }
                // Said before, and the answer was lost.
                Some(outcome) if outcome == Outcome::Ended.as_str() && job.status == status => {}
                Some(_) => return Err(StoreError::LeaseLost),
            }
            changed
        })
    }

    /// Gives a job back that has not begun: it goes back to the queue, or ends when
    /// that happened too often. What does not count as an attempt can't happen too
    /// often.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Conflict`] when it has begun.
    pub async fn give_back(
        &self,
        lease: LeaseKey<'_>,
        reason: &str,
        counts: bool,
    ) -> Result<Changed, StoreError> {
        write!(self, |tx| {
            let held = held(tx, lease).await?;
            let mut changed = Changed::default();
            match held.outcome.as_deref() {
                None if held.begun.is_some() => {
                    return Err(StoreError::Conflict(
                        "a job that has begun can't be given back".into(),
                    ));
                }
                None => {
                    let outcome = Outcome::Returned;
                    moves::end_lease(tx, lease.fence, outcome, Some(reason), &mut changed).await?;
                    let job = moves::present(tx, held.job).await?;
                    let tries = if counts {
                        job.tries
                    } else {
                        uncount(tx, &job).await?
                    };
                    let next = lease::given_back(tries, counts, reason);
                    moves::job(tx, &job, next.status, Some(&next.reason), &mut changed).await?;
                }
                Some(outcome) if outcome == Outcome::Returned.as_str() => {}
                Some(_) => return Err(StoreError::LeaseLost),
            }
            changed
        })
    }
}

/// Takes back that the last attempt counts.
async fn uncount(tx: &mut Tx, job: &moves::Present) -> Result<u32, StoreError> {
    sqlx::query("UPDATE jobs SET tries = tries - 1 WHERE id = $1")
        .bind(i64::from(job.id.0))
        .execute(&mut **tx)
        .await?;
    Ok(job.tries.saturating_sub(1))
}

/// A lease of just this session of just this worker, ended or not.
async fn held(tx: &mut Tx, lease: LeaseKey<'_>) -> Result<Held, StoreError> {
    let row = sqlx::query(
        "SELECT job_id, begun, outcome FROM attempts
         WHERE id = $1 AND session_id = $2 AND worker_id = $3",
    )
    .bind(lease.fence.0)
    .bind(lease.session.as_str())
    .bind(i64::from(lease.worker.0))
    .fetch_optional(&mut **tx)
    .await?
    .ok_or(StoreError::LeaseLost)?;
    Ok(Held {
        job: JobId(rows::number(&row, "job_id")?),
        begun: rows::optional_moment(&row, "begun")?,
        outcome: row.try_get("outcome")?,
    })
}

/// The same, and it has not ended.
async fn alive(tx: &mut Tx, lease: LeaseKey<'_>) -> Result<Held, StoreError> {
    let held = held(tx, lease).await?;
    match held.outcome {
        None => Ok(held),
        Some(_) => Err(StoreError::LeaseLost),
    }
}

/// Brings tasks to the ends that a worker names. A status that was acknowledged
/// before stays: only what has not ended is moved.
async fn end_tasks(
    tx: &mut Tx,
    job: JobId,
    ends: &[(String, TaskStatus)],
) -> Result<(), StoreError> {
    for mut found in moves::tasks(tx, job).await? {
        let end = ends.iter().find(|(name, _)| *name == found.name);
        let Some((_, end)) = end.filter(|(_, end)| end.is_terminal()) else {
            continue;
        };
        if found.status.is_terminal() {
            continue;
        }
        // Its start was not told, or not yet.
        if found.status == TaskStatus::Pending && *end != TaskStatus::Skipped {
            moves::task(tx, &found, TaskStatus::Running).await?;
            found.status = TaskStatus::Running;
        }
        if found.status.transition(*end).is_ok() {
            moves::task(tx, &found, *end).await?;
        }
    }
    Ok(())
}
