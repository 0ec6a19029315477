//! Jobs as their owners see them.

use kiln_core::{
    farm::{ArtifactId, JobId, TaskId, UserId, Visibility, attempt::Outcome},
    job::JobStatus,
};
use sqlx::{AssertSqlSafe, Row as _, any::AnyRow};

use super::moves;
use crate::{
    Store, StoreError,
    model::{Artifact, Attempt, Changed, Job, JobPage, Moment, Source, Task},
    rows::{self, job_columns, job_tables, listed_columns},
    tx::{Tx, write},
};

/// Jobs that are asked about in one statement.
const AT_ONCE: usize = 500;

impl Store {
    /// The database's clock.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn now(&self) -> Result<Moment, StoreError> {
        let now = sqlx::query_scalar(self.engine.now())
            .fetch_one(&self.pool)
            .await?;
        Ok(Moment(now))
    }

    /// A job.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT ",
            job_columns!(),
            " FROM ",
            job_tables!(),
            " WHERE j.id = $1"
        ))
        .bind(i64::from(id.0))
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(rows::job).transpose()
    }

    /// The text of a job's manifest.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn manifest(&self, id: JobId) -> Result<String, StoreError> {
        let row = sqlx::query("SELECT recipe FROM jobs WHERE id = $1")
            .bind(i64::from(id.0))
            .fetch_optional(&self.pool)
            .await?
            .ok_or(StoreError::NotFound("job"))?;
        Ok(row.try_get("recipe")?)
    }

    /// The tasks of these jobs, by job and place.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn tasks(&self, jobs: &[JobId]) -> Result<Vec<Task>, StoreError> {
        let rows = self.of_jobs("tasks", jobs).await?;
        rows.iter().map(rows::task).collect()
    }

    /// A task.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn task(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        let row = sqlx::query("SELECT * FROM tasks WHERE id = $1")
            .bind(i64::from(id.0))
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(rows::task).transpose()
    }

    /// The artifacts of these jobs, by job and place.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn artifacts(&self, jobs: &[JobId]) -> Result<Vec<Artifact>, StoreError> {
        let rows = self.of_jobs("artifacts", jobs).await?;
        rows.iter().map(rows::artifact).collect()
    }

    /// An artifact.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn artifact(&self, id: ArtifactId) -> Result<Option<Artifact>, StoreError> {
        let row = sqlx::query("SELECT * FROM artifacts WHERE id = $1")
            .bind(i64::from(id.0))
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(rows::artifact).transpose()
    }

    /// The sources of a job as they were cloned last.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn sources(&self, job: JobId) -> Result<Vec<Source>, StoreError> {
        let rows = self.of_jobs("sources", &[job]).await?;
        rows.iter().map(rows::source).collect()
    }

    /// The attempts at a job, in order.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn attempts(&self, job: JobId) -> Result<Vec<Attempt>, StoreError> {
        let rows = sqlx::query(
            "SELECT a.id, a.number, a.granted, a.begun, a.ended, a.reason, w.name AS worker
             FROM attempts a JOIN workers w ON w.id = a.worker_id
             WHERE a.job_id = $1 ORDER BY a.number",
        )
        .bind(i64::from(job.0))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(rows::attempt).collect()
    }

    /// Jobs of a user, newest first, older than `before`; only those that are public
    /// when `public_only`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn jobs_of(
        &self,
        owner: UserId,
        before: Option<JobId>,
        limit: u32,
        public_only: bool,
    ) -> Result<JobPage, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            listed_columns!(),
            " FROM ",
            job_tables!(),
            " WHERE j.owner_id = $1 AND j.id < $2 AND ($3 = 0 OR j.visibility = 'public')
              ORDER BY j.id DESC LIMIT $4"
        ))
        .bind(i64::from(owner.0))
        .bind(before.map_or(i64::MAX, |id| i64::from(id.0)))
        .bind(i64::from(public_only))
        // One more tells whether there is a next page.
        .bind(i64::from(limit) + 1)
        .fetch_all(&self.pool)
        .await?;
        let mut jobs: Vec<Job> = rows
            .iter()
            .map(rows::listed_job)
            .collect::<Result<_, _>>()?;
        let more = jobs.len() > usize::try_from(limit).unwrap_or(usize::MAX);
        if more {
            jobs.pop();
        }
        let next = jobs.last().filter(|_| more).map(|job| job.id);
        Ok(JobPage { jobs, next })
    }

    /// Queues a pending job.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] when it is not pending.
    pub async fn start(&self, job: JobId) -> Result<Changed, StoreError> {
        write!(self, |tx| {
            let mut changed = Changed::default();
            let present = moves::present(tx, job).await?;
            moves::job(tx, &present, JobStatus::Queued, None, &mut changed).await?;
            changed
        })
    }

    /// Cancels a job that has not ended, with this reason.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] when it has ended.
    pub async fn cancel(&self, job: JobId, reason: &str) -> Result<Changed, StoreError> {
        write!(self, |tx| {
            let mut changed = Changed::default();
            cancel(tx, job, reason, &mut changed).await?;
            changed
        })
    }

    /// Changes who sees a job.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_visibility(
        &self,
        job: JobId,
        visibility: Visibility,
    ) -> Result<Job, StoreError> {
        write!(self, |tx| {
            sqlx::query("UPDATE jobs SET visibility = $2, updated = $3 WHERE id = $1")
                .bind(i64::from(job.0))
                .bind(visibility.as_str())
                .bind(tx.now.0)
                .execute(&mut **tx)
                .await?;
        })?;
        self.job(job).await?.ok_or(StoreError::NotFound("job"))
    }

    /// The rows of a table that belong to these jobs, by job and place.
    async fn of_jobs(
        &self,
        table: &'static str,
        jobs: &[JobId],
    ) -> Result<Vec<AnyRow>, StoreError> {
        let mut jobs = jobs.to_vec();
        jobs.sort_unstable();
        jobs.dedup();
        let mut all = Vec::new();
        for some in jobs.chunks(AT_ONCE) {
            let places = places(1, some.len());
            // The table's name is one of ours.
            let text =
                format!("SELECT * FROM {table} WHERE job_id IN ({places}) ORDER BY job_id, place");
            let mut query = sqlx::query(AssertSqlSafe(text));
            for job in some {
                query = query.bind(i64::from(job.0));
            }
            all.extend(query.fetch_all(&self.pool).await?);
        }
        Ok(all)
    }
}

/// `$1, $2, …`: so many placeholders from this one on.
pub(crate) fn places(from: usize, count: usize) -> String {
    let names: Vec<String> = (from..from + count).map(|n| format!("${n}")).collect();
    names.join(", ")
}

/// Cancels a job; a lease of it ends with it.
pub(crate) async fn cancel(
    tx: &mut Tx,
    job: JobId,
    reason: &str,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let present = moves::present(tx, job).await?;
    if present.status == JobStatus::Running {
        let fence = sqlx::query("SELECT id FROM attempts WHERE job_id = $1 AND ended IS NULL")
            .bind(i64::from(job.0))
            .fetch_one(&mut **tx)
            .await?
            .try_get("id")?;
        let fence = kiln_core::farm::Fence(fence);
        moves::end_lease(tx, fence, Outcome::Cancelled, Some(reason), changed).await?;
    }
    moves::job(tx, &present, JobStatus::Cancelled, Some(reason), changed).await
}
