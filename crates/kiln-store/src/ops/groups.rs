//! Groups of jobs.

use kiln_core::{
    farm::{GroupId, JobId, UserId},
    job::JobStatus,
};
use sqlx::Row as _;

use super::moves;
use crate::{
    Store, StoreError,
    model::{Changed, Group, Job, Trigger},
    rows::{self, job_tables, listed_columns},
    tx::{Tx, write},
};

impl Store {
    /// Makes a group of pending jobs of one owner that are in none, and queues them
    /// when told to.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for a job that is not there or another's;
    /// [`StoreError::Conflict`] for one that is not pending, or in a group, and for
    /// a group of no jobs.
    pub async fn add_group(
        &self,
        owner: UserId,
        jobs: &[JobId],
        note: Option<&str>,
        triggers: &[Trigger],
        execute: bool,
    ) -> Result<(Group, Changed), StoreError> {
        if jobs.is_empty() {
            return Err(StoreError::Conflict("a group has at least one job".into()));
        }
        let (id, changed) = write!(self, |tx| {
            let id = add(tx, owner, note, triggers).await?;
            let mut jobs = jobs.to_vec();
            jobs.sort_unstable();
            jobs.dedup();
            for job in &jobs {
                join(tx, owner, id, *job).await?;
            }
            let mut changed = Changed::default();
            if execute {
                start(tx, id, &mut changed).await?;
            }
            (id, changed)
        })?;
        let group = self.group(id).await?;
        Ok((group.ok_or(StoreError::NotFound("group"))?, changed))
    }

    /// A group.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn group(&self, id: GroupId) -> Result<Option<Group>, StoreError> {
        let row = sqlx::query("SELECT * FROM job_groups WHERE id = $1")
            .bind(i64::from(id.0))
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let triggers =
            sqlx::query("SELECT * FROM group_triggers WHERE group_id = $1 ORDER BY place")
                .bind(i64::from(id.0))
                .fetch_all(&self.pool)
                .await?;
        let triggers = triggers.iter().map(rows::trigger);
        Ok(Some(Group {
            triggers: triggers.collect::<Result<_, _>>()?,
            ..rows::group(&row)?
        }))
    }

    /// The jobs of a group, by number.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn group_jobs(&self, id: GroupId) -> Result<Vec<Job>, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            listed_columns!(),
            " FROM ",
            job_tables!(),
            " WHERE j.group_id = $1 ORDER BY j.id"
        ))
        .bind(i64::from(id.0))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(rows::listed_job).collect()
    }

    /// Queues the pending jobs of a group.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn start_group(&self, id: GroupId) -> Result<Changed, StoreError> {
        write!(self, |tx| {
            sqlx::query("SELECT id FROM job_groups WHERE id = $1")
                .bind(i64::from(id.0))
                .fetch_optional(&mut **tx)
                .await?
                .ok_or(StoreError::NotFound("group"))?;
            let mut changed = Changed::default();
            start(tx, id, &mut changed).await?;
            changed
        })
    }
}

async fn add(
    tx: &mut Tx,
    owner: UserId,
    note: Option<&str>,
    triggers: &[Trigger],
) -> Result<GroupId, StoreError> {
    let row = sqlx::query(
        "INSERT INTO job_groups (owner_id, created, note) VALUES ($1, $2, $3) RETURNING id",
    )
    .bind(i64::from(owner.0))
    .bind(tx.now.0)
    .bind(note)
    .fetch_one(&mut **tx)
    .await?;
    let id = GroupId(rows::number(&row, "id")?);
    for (place, trigger) in (0i64..).zip(triggers) {
        let (happens, action) = rows::trigger_columns(trigger)?;
        sqlx::query(
            "INSERT INTO group_triggers (group_id, place, happens, action) VALUES ($1, $2, $3, $4)",
        )
        .bind(i64::from(id.0))
        .bind(place)
        .bind(happens)
        .bind(action)
        .execute(&mut **tx)
        .await?;
    }
    Ok(id)
}

async fn join(tx: &mut Tx, owner: UserId, group: GroupId, job: JobId) -> Result<(), StoreError> {
    let row = sqlx::query("SELECT status, group_id FROM jobs WHERE id = $1 AND owner_id = $2")
        .bind(i64::from(job.0))
        .bind(i64::from(owner.0))
        .fetch_optional(&mut **tx)
        .await?
        .ok_or(StoreError::NotFound("job"))?;
    let before: Option<i64> = row.try_get("group_id")?;
    if before.is_some() {
        return Err(StoreError::Conflict(format!(
            "job {job} is in a group already"
        )));
    }
    let status = rows::job_status(&row)?;
    if status != JobStatus::Pending {
        return Err(StoreError::Conflict(format!(
            "job {job} is {status}; only pending jobs can be put into a group"
        )));
    }
    sqlx::query("UPDATE jobs SET group_id = $2 WHERE id = $1")
        .bind(i64::from(job.0))
        .bind(i64::from(group.0))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn start(tx: &mut Tx, group: GroupId, changed: &mut Changed) -> Result<(), StoreError> {
    let jobs =
        sqlx::query("SELECT id FROM jobs WHERE group_id = $1 AND status = 'pending' ORDER BY id")
            .bind(i64::from(group.0))
            .fetch_all(&mut **tx)
            .await?;
    for row in &jobs {
        let present = moves::present(tx, JobId(rows::number(row, "id")?)).await?;
        moves::job(tx, &present, JobStatus::Queued, None, changed).await?;
    }
    Ok(())
}
