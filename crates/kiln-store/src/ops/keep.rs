//! What jobs keep once they have ended: their logs are packed and counted, and later removed.
//!
//! What is removed is noted as garbage in the transaction in which the last row that refers to
//! it goes; the objects follow. So a crash leaves objects without rows, and never the other
//! way round.

use kiln_core::{
    farm::{JobId, LogName, UserId},
    job::TaskStatus,
};
use sqlx::{AssertSqlSafe, Row as _};

use crate::{
    Store, StoreError,
    model::{Ended, Moment, Packed, Removal, What},
    rows,
    tx::{Tx, write},
};

/// Users that are looked at in one go for what they have too much.
const USERS: i64 = 16;

impl What {
    /// Its column in `kept`.
    fn column(self) -> &'static str {
        match self {
            Self::Artifacts => "artifacts",
            Self::Logs => "logs",
        }
    }
}

impl Store {
    /// Jobs whose logs are to be packed, by their end: those that ended until this moment and
    /// come after `last`; so many at the most.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn to_pack(
        &self,
        until: Moment,
        last: Option<(Moment, JobId)>,
        most: u32,
    ) -> Result<Vec<Ended>, StoreError> {
        let (ended, id) = last.unwrap_or((Moment(i64::MIN), JobId(0)));
        let rows = sqlx::query(
            "SELECT id, ended FROM jobs
             WHERE packed = 0 AND ended IS NOT NULL AND ended <= $1
               AND (ended > $2 OR (ended = $2 AND id > $3))
             ORDER BY ended, id LIMIT $4",
        )
        .bind(until.0)
        .bind(ended.0)
        .bind(i64::from(id.0))
        .bind(i64::from(most))
        .fetch_all(&self.pool)
        .await?;
        let mut all = Vec::new();
        for row in &rows {
            let job = JobId(rows::number(row, "id")?);
            all.push(Ended {
                job,
                ended: rows::moment(row, "ended")?,
                logs: vec![LogName::Job(job)],
            });
        }
        let jobs: Vec<JobId> = all.iter().map(|ended| ended.job).collect();
        for task in self.tasks(&jobs).await? {
            let ran = !matches!(task.status, TaskStatus::Pending | TaskStatus::Skipped);
            if let Some(of) = all.iter_mut().find(|of| ran && of.job == task.job) {
                of.logs.push(LogName::Task(task.job, task.name));
            }
        }
        Ok(all)
    }

    /// Notes that a job's logs were packed, and counts what it keeps: its logs take so many
    /// bytes. Said again, it changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn packed(&self, jobs: &[Packed]) -> Result<(), StoreError> {
        write!(self, |tx| {
            for Packed { job, logs } in jobs {
                packed(tx, *job, *logs).await?;
            }
        })
    }

    /// Ended jobs that keep something of this kind, by their end: those that ended until this
    /// moment; so many at the most.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn kept_until(
        &self,
        what: What,
        until: Moment,
        most: u32,
    ) -> Result<Vec<JobId>, StoreError> {
        let column = what.column();
        // A word of this crate.
        let text = AssertSqlSafe(format!(
            "SELECT job_id FROM kept WHERE {column} > 0 AND ended <= $1
             ORDER BY ended, job_id LIMIT $2"
        ));
        let rows = sqlx::query(text)
            .bind(until.0)
            .bind(i64::from(most))
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| Ok(JobId(rows::number(row, "job_id")?)))
            .collect()
    }

    /// What owners keep beyond so many bytes: the oldest first, artifacts before logs; so
    /// many jobs of each owner at the most.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn kept_beyond(
        &self,
        limit: u64,
        most: u32,
    ) -> Result<Vec<(What, JobId)>, StoreError> {
        let owners = sqlx::query("SELECT id, kept FROM users WHERE kept > $1 ORDER BY id LIMIT $2")
            .bind(rows::signed(limit))
            .bind(USERS)
            .fetch_all(&self.pool)
            .await?;
        let mut beyond = Vec::new();
        for row in &owners {
            let owner = UserId(rows::number(row, "id")?);
            let kept: u64 = rows::number(row, "kept")?;
            let mut excess = kept.saturating_sub(limit);
            for what in [What::Artifacts, What::Logs] {
                let oldest = self.oldest_kept(owner, what, most).await?;
                let all = oldest.len() < usize::try_from(most).unwrap_or(usize::MAX);
                for (job, bytes) in oldest {
                    if excess == 0 {
                        break;
                    }
                    beyond.push((what, job));
                    excess = excess.saturating_sub(bytes);
                }
                // There are more of these, and they go before the others.
                if !all {
                    break;
                }
            }
        }
        Ok(beyond)
    }

    /// An owner's ended jobs that keep something of this kind, by their end, and how much.
    async fn oldest_kept(
        &self,
        owner: UserId,
        what: What,
        most: u32,
    ) -> Result<Vec<(JobId, u64)>, StoreError> {
        let column = what.column();
        // A word of this crate.
        let text = AssertSqlSafe(format!(
            "SELECT job_id, {column} AS bytes FROM kept WHERE {column} > 0 AND owner_id = $1
             ORDER BY ended, job_id LIMIT $2"
        ));
        let rows = sqlx::query(text)
            .bind(i64::from(owner.0))
            .bind(i64::from(most))
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let job = JobId(rows::number(row, "job_id")?);
                Ok((job, rows::number(row, "bytes")?))
            })
            .collect()
    }

    /// Removes what jobs keep of a kind: no row refers to it any more, and its objects, or the
    /// begin of their keys, are garbage from now on. Only packed jobs can lose something.
    /// Gives how many bytes went.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn remove(&self, removals: &[Removal]) -> Result<u64, StoreError> {
        write!(self, |tx| {
            let mut bytes = 0;
            for removal in removals {
                bytes += remove(tx, removal).await?;
            }
            bytes
        })
    }
}

async fn packed(tx: &mut Tx, job: JobId, logs: u64) -> Result<(), StoreError> {
    let row = sqlx::query(
        "UPDATE jobs SET packed = 1 WHERE id = $1 AND packed = 0 AND ended IS NOT NULL
         RETURNING owner_id, ended",
    )
    .bind(i64::from(job.0))
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = row else { return Ok(()) };
    let owner: i64 = row.try_get("owner_id")?;
    let artifacts: i64 = sqlx::query_scalar(
        "SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM artifacts
         WHERE job_id = $1 AND pruned = 0",
    )
    .bind(i64::from(job.0))
    .fetch_one(&mut **tx)
    .await?;
    let logs = rows::signed(logs);
    if logs + artifacts == 0 {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO kept (job_id, owner_id, ended, logs, artifacts) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(i64::from(job.0))
    .bind(owner)
    .bind(row.try_get::<i64, _>("ended")?)
    .bind(logs)
    .bind(artifacts)
    .execute(&mut **tx)
    .await?;
    count(tx, owner, logs + artifacts).await
}

/// Counts what an owner keeps.
async fn count(tx: &mut Tx, owner: i64, bytes: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET kept = kept + $2 WHERE id = $1")
        .bind(owner)
        .bind(bytes)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn remove(tx: &mut Tx, removal: &Removal) -> Result<u64, StoreError> {
    let Removal { job, what, objects } = removal;
    let row = sqlx::query("SELECT owner_id, logs, artifacts FROM kept WHERE job_id = $1")
        .bind(i64::from(job.0))
        .fetch_optional(&mut **tx)
        .await?;
    let Some(row) = row else { return Ok(0) };
    let bytes: i64 = row.try_get(what.column())?;
    if bytes == 0 {
        return Ok(0);
    }
    // A word of this crate.
    let column = what.column();
    let emptied = AssertSqlSafe(format!("UPDATE kept SET {column} = 0 WHERE job_id = $1"));
    let unkept = "DELETE FROM kept WHERE job_id = $1 AND logs = 0 AND artifacts = 0";
    sqlx::query(emptied)
        .bind(i64::from(job.0))
        .execute(&mut **tx)
        .await?;
    sqlx::query(unkept)
        .bind(i64::from(job.0))
        .execute(&mut **tx)
        .await?;
    count(tx, row.try_get("owner_id")?, -bytes).await?;
    match what {
        What::Artifacts => {
            sqlx::query("UPDATE artifacts SET pruned = 1 WHERE job_id = $1")
                .bind(i64::from(job.0))
                .execute(&mut **tx)
                .await?;
        }
        What::Logs => forget_logs(tx, *job).await?,
    }
    super::garbage::add(tx, objects, tx.now).await?;
    Ok(u64::try_from(bytes).unwrap_or_default())
}

async fn forget_logs(tx: &mut Tx, job: JobId) -> Result<(), StoreError> {
    sqlx::query("UPDATE jobs SET logs_removed = $2 WHERE id = $1")
        .bind(i64::from(job.0))
        .bind(tx.now.0)
        .execute(&mut **tx)
        .await?;
    // Who packs one of them locks it before its chunks, too.
    let logs = AssertSqlSafe(format!(
        "SELECT task FROM logs WHERE job_id = $1{}",
        tx.engine.alone()
    ));
    sqlx::query(logs)
        .bind(i64::from(job.0))
        .fetch_all(&mut **tx)
        .await?;
    for rows in [
        "DELETE FROM chunks WHERE job_id = $1",
        "DELETE FROM logs WHERE job_id = $1",
    ] {
        sqlx::query(rows)
            .bind(i64::from(job.0))
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}
