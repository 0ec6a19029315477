//! Which objects rows refer to: for who compares that with what is there.

use std::{collections::BTreeSet, ops::RangeInclusive};

use kiln_core::farm::{JobId, LogName};
use sqlx::Row as _;

use crate::{Store, StoreError, model::Referred, rows};

impl Store {
    /// What rows of these jobs refer to.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn referred(&self, jobs: &RangeInclusive<i32>) -> Result<Referred, StoreError> {
        let mut referred = Referred::default();
        let text = "SELECT object, length FROM chunks
             WHERE job_id >= $1 AND job_id <= $2 AND object IS NOT NULL
             UNION ALL SELECT packed, packed_length FROM logs
             WHERE job_id >= $1 AND job_id <= $2 AND packed IS NOT NULL";
        for row in &self.of_range(text, jobs).await? {
            let key = row.try_get("object")?;
            referred.objects.push((key, rows::number(row, "length")?));
        }
        let text = "SELECT job_id, place, size FROM artifacts
             WHERE job_id >= $1 AND job_id <= $2 AND pruned = 0";
        for row in &self.of_range(text, jobs).await? {
            let job = JobId(rows::number(row, "job_id")?);
            let (place, size) = (rows::number(row, "place")?, rows::number(row, "size")?);
            referred.artifacts.push((job, place, size));
        }
        let text = "SELECT id, attempts FROM jobs
             WHERE id >= $1 AND id <= $2 AND logs_removed IS NULL";
        for row in &self.of_range(text, jobs).await? {
            let log = LogName::Job(JobId(rows::number(row, "id")?));
            if rows::number::<u32>(row, "attempts")? > 0 {
                referred.begun.push(log.clone());
            }
            referred.logs.push(log);
        }
        let text = "SELECT t.job_id, t.name FROM tasks t JOIN jobs j ON j.id = t.job_id
             WHERE j.id >= $1 AND j.id <= $2 AND j.logs_removed IS NULL";
        for row in &self.of_range(text, jobs).await? {
            let job = JobId(rows::number(row, "job_id")?);
            referred.logs.push(LogName::Task(job, row.try_get("name")?));
        }
        Ok(referred)
    }

    /// By what the numbers of jobs begin, when so many belong together.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn shards(&self, size: i32) -> Result<BTreeSet<i32>, StoreError> {
        let mut shards = BTreeSet::new();
        let mut from = 0;
        // From one to the next by the key: nothing reads the whole table.
        while let Some(id) = self.first_job(from).await? {
            let shard = id / size;
            shards.insert(shard);
            let Some(next) = shard.checked_add(1).and_then(|next| next.checked_mul(size)) else {
                break;
            };
            from = next;
        }
        Ok(shards)
    }

    async fn first_job(&self, from: i32) -> Result<Option<i32>, StoreError> {
        let row = sqlx::query("SELECT id FROM jobs WHERE id >= $1 ORDER BY id LIMIT 1")
            .bind(i64::from(from))
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| rows::number(&row, "id")).transpose()
    }

    async fn of_range(
        &self,
        text: &'static str,
        jobs: &RangeInclusive<i32>,
    ) -> Result<Vec<sqlx::any::AnyRow>, StoreError> {
        let rows = sqlx::query(text)
            .bind(i64::from(*jobs.start()))
            .bind(i64::from(*jobs.end()))
            .fetch_all(&self.pool);
        Ok(rows.await?)
    }
}
