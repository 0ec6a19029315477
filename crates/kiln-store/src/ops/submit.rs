//! Submitting a job.

use kiln_core::{farm::JobId, job::JobStatus};
use sqlx::Row as _;

use super::moves;
use crate::{
    Store, StoreError,
    model::{Changed, Job, NewJob},
    rows,
    tx::{Tx, write},
};

impl Store {
    /// Writes job, tasks and what the outbox tells of it; or finds the job that the
    /// same key made. The flag says whether it is new.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the same key made a job of something else.
    pub async fn submit(&self, job: &NewJob) -> Result<(Job, bool), StoreError> {
        let (id, new) = write!(self, |tx| match repeated(tx, job).await? {
            Some(id) => (id, false),
            None => (add(tx, job).await?, true),
        })?;
        let job = self.job(id).await?;
        Ok((job.ok_or(StoreError::NotFound("job"))?, new))
    }
}

/// The job that the same key made.
async fn repeated(tx: &mut Tx, job: &NewJob) -> Result<Option<JobId>, StoreError> {
    let Some((key, hash)) = &job.idempotency else {
        return Ok(None);
    };
    let row = sqlx::query(
        "SELECT id, idempotency_hash FROM jobs WHERE owner_id = $1 AND idempotency = $2",
    )
    .bind(i64::from(job.owner.0))
    .bind(key)
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let before: Option<String> = row.try_get("idempotency_hash")?;
    if before != Some(rows::digits(hash)) {
        return Err(StoreError::Conflict(
            "another job was submitted with this Idempotency-Key".into(),
        ));
    }
    Ok(Some(JobId(rows::number(&row, "id")?)))
}

async fn add(tx: &mut Tx, job: &NewJob) -> Result<JobId, StoreError> {
    let share = share(tx, job).await?;
    let class = class(tx, job).await?;
    let (key, hash) = match &job.idempotency {
        Some((key, hash)) => (Some(key), Some(rows::digits(hash))),
        None => (None, None),
    };
    let row = sqlx::query(
        "INSERT INTO jobs (owner_id, share_id, class_id, status, priority, recipe_kind, recipe,
            visibility, tags, note, secrets, deadline_seconds, idempotency, idempotency_hash,
            created, updated)
         VALUES ($1, $2, $3, 'pending', $4, 'manifest', $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)
         RETURNING id",
    )
    .bind(i64::from(job.owner.0))
    .bind(share)
    .bind(class)
    .bind(i64::from(job.priority))
    .bind(&job.manifest)
    .bind(job.visibility.as_str())
    .bind(rows::to_json(&job.tags)?)
    .bind(&job.note)
    .bind(i64::from(job.secrets))
    .bind(rows::signed(job.deadline_seconds))
    .bind(key)
    .bind(hash)
    .bind(tx.now.0)
    .fetch_one(&mut **tx)
    .await?;
    let id = JobId(rows::number(&row, "id")?);
    add_tasks(tx, id, &job.tasks).await?;
    moves::tell(tx, "job-submitted", Some(id), None).await?;
    if job.execute {
        let present = moves::present(tx, id).await?;
        let mut changed = Changed::default();
        moves::job(tx, &present, JobStatus::Queued, None, &mut changed).await?;
    }
    Ok(id)
}

async fn add_tasks(tx: &mut Tx, job: JobId, names: &[String]) -> Result<(), StoreError> {
    for (place, name) in (0i64..).zip(names) {
        sqlx::query(
            "INSERT INTO tasks (job_id, place, name, status, created, updated)
             VALUES ($1, $2, $3, 'pending', $4, $4)",
        )
        .bind(i64::from(job.0))
        .bind(place)
        .bind(name)
        .bind(tx.now.0)
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

async fn share(tx: &mut Tx, job: &NewJob) -> Result<i64, StoreError> {
    let name = job.share.as_deref().unwrap_or_default();
    sqlx::query(
        "INSERT INTO shares (owner_id, name) VALUES ($1, $2)
         ON CONFLICT (owner_id, name) DO NOTHING",
    )
    .bind(i64::from(job.owner.0))
    .bind(name)
    .execute(&mut **tx)
    .await?;
    let id = sqlx::query_scalar("SELECT id FROM shares WHERE owner_id = $1 AND name = $2")
        .bind(i64::from(job.owner.0))
        .bind(name)
        .fetch_one(&mut **tx)
        .await?;
    Ok(id)
}

async fn class(tx: &mut Tx, job: &NewJob) -> Result<i64, StoreError> {
    let requirements = job.requirements.to_string();
    sqlx::query(
        "INSERT INTO classes (requirements, image) VALUES ($1, $2)
         ON CONFLICT (requirements) DO NOTHING",
    )
    .bind(&requirements)
    .bind(&job.requirements.image)
    .execute(&mut **tx)
    .await?;
    let id = sqlx::query_scalar("SELECT id FROM classes WHERE requirements = $1")
        .bind(&requirements)
        .fetch_one(&mut **tx)
        .await?;
    Ok(id)
}
