//! Ending what nobody else ends.

use kiln_core::farm::{
    Fence, JobId, Labels,
    attempt::Outcome,
    lease::{self, Next},
    limits,
};
use sqlx::Row as _;

use super::{jobs::cancel, moves, sessions::LEASE};
use crate::{
    Store, StoreError,
    model::{Changed, Counts, Moment},
    rows,
    tx::{SECOND, Tx, write},
};

/// How much of the time since the last look counts, at most: a farm that was off did
/// not see that nobody serves a class.
const LOOK: i64 = 5 * 60 * SECOND;
/// Jobs that are ended in one transaction, so that others get their turn.
const AT_ONCE: i64 = 100;

impl Store {
    /// Ends leases that had run out, and jobs that were a minute past their deadline, when it
    /// was known that renewals could be received for a whole lease, at `heard`: what came
    /// while this waited for its turn, nobody may have been able to say anything against.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn reap(&self, heard: Moment) -> Result<Changed, StoreError> {
        // Mostly there is nothing, and then nobody needs to wait for this.
        if !self.may_be_over().await? {
            return Ok(Changed::default());
        }
        write!(self, |tx| {
            let mut changed = Changed::default();
            shorten(tx, heard).await?;
            for (fence, job, next) in over(tx, heard).await? {
                let reason = Some(next.reason.as_str());
                moves::end_lease(tx, fence, Outcome::Reaped, reason, &mut changed).await?;
                let present = moves::present(tx, job).await?;
                moves::job(tx, &present, next.status, reason, &mut changed).await?;
            }
            changed
        })
    }

    /// Whether some lease may be over, or seems to be of another time.
    async fn may_be_over(&self) -> Result<bool, StoreError> {
        let now = self.now().await?;
        let found = sqlx::query(
            "SELECT 1 FROM attempts a JOIN jobs j ON j.id = a.job_id
             WHERE a.ended IS NULL AND (a.expires < $1 OR a.expires > $2
                OR j.deadline_seconds + $3 <= ($1 - a.granted) / 1000000)
             UNION ALL SELECT 1 FROM sessions WHERE ended IS NULL AND seen > $4 LIMIT 1",
        )
        .bind(now.0)
        // Others renew while this reads.
        .bind(now.0 + LEASE + SECOND)
        .bind(rows::signed(lease::GRACE_SECONDS))
        .bind(now.0 + SECOND)
        .fetch_optional(&self.pool)
        .await?;
        Ok(found.is_some())
    }

    /// The database's clock was put forward by so many microseconds, from `before` on. No job
    /// loses that time: the leases of then began as much later. Of several servers that say
    /// so, one does it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn put_forward(&self, before: Moment, by: i64) -> Result<(), StoreError> {
        write!(self, |tx| {
            // Whoever saw just this did it behind it.
            let first = sqlx::query(
                "INSERT INTO duties (name, holder, until) VALUES ('clock', '', $1)
                 ON CONFLICT (name) DO UPDATE SET until = $1
                 WHERE duties.until <= $2 OR duties.until > $1",
            )
            .bind(tx.now.0)
            .bind(before.0)
            .execute(&mut **tx)
            .await?;
            if first.rows_affected() == 1 {
                sqlx::query(
                    "UPDATE attempts SET granted = granted + $1
                     WHERE ended IS NULL AND granted <= $2",
                )
                .bind(by)
                .bind(before.0)
                .execute(&mut **tx)
                .await?;
            }
        })
    }

    /// Cancels jobs that no worker could serve for [`limits::UNSERVED_DAYS`]. To be
    /// called at least every few minutes: time in which it was not called does not
    /// count.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn cancel_unserved(&self) -> Result<Changed, StoreError> {
        write!(self, |tx| {
            let mut changed = Changed::default();
            look(tx).await?;
            let reason = format!(
                "no worker could run this job for {} days",
                limits::UNSERVED_DAYS
            );
            let days = rows::signed(limits::UNSERVED_DAYS) * 24 * 60 * 60 * SECOND;
            let jobs = sqlx::query(
                "SELECT j.id FROM classes c JOIN jobs j ON j.class_id = c.id
                 WHERE c.unserved >= $1 AND j.status = 'queued' AND j.needs_left = 0
                   AND j.queued <= $2
                 ORDER BY j.id LIMIT $3",
            )
            .bind(days)
            .bind(tx.now.0 - days)
            .bind(AT_ONCE)
            .fetch_all(&mut **tx)
            .await?;
            for row in &jobs {
                let job = JobId(rows::number(row, "id")?);
                cancel(tx, job, &reason, &mut changed).await?;
            }
            changed
        })
    }

    /// How many jobs there are of each status, and sessions.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        let now = self.now().await?;
        let row = sqlx::query(
            "SELECT
                CAST((SELECT COALESCE(SUM(queued), 0) FROM lanes) AS BIGINT) AS queued,
                CAST((SELECT COALESCE(SUM(running), 0) FROM shares) AS BIGINT) AS running,
                CAST((SELECT COALESCE(MAX(id), 0) FROM jobs) AS BIGINT) AS submitted,
                COUNT(*) AS sessions, CAST(COALESCE(SUM(slots), 0) AS BIGINT) AS slots
             FROM sessions WHERE ended IS NULL AND seen > $1",
        )
        .bind(now.0 - LEASE)
        .fetch_one(&self.pool)
        .await?;
        Ok(Counts {
            queued: rows::number(&row, "queued")?,
            running: rows::number(&row, "running")?,
            submitted: rows::number(&row, "submitted")?,
            sessions: rows::number(&row, "sessions")?,
            slots: rows::number(&row, "slots")?,
        })
    }
}

/// No lease lasts longer than a whole one, and nobody was seen in the future: where it seems so,
/// the database's clock was put back. A worker that is lost would not be missed, and given jobs.
/// That it was is believed only when renewals were received for a whole lease since.
async fn shorten(tx: &mut Tx, heard: Moment) -> Result<(), StoreError> {
    let now = tx.now.0.max(heard.0);
    sqlx::query("UPDATE attempts SET expires = $1 WHERE ended IS NULL AND expires > $1")
        .bind(now + LEASE)
        .execute(&mut **tx)
        .await?;
    sqlx::query("UPDATE sessions SET seen = $2 WHERE ended IS NULL AND seen > $1")
        .bind(now)
        .bind(now - LEASE)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Leases that are over, and where their jobs go.
async fn over(tx: &mut Tx, heard: Moment) -> Result<Vec<(Fence, JobId, Next)>, StoreError> {
    let rows = sqlx::query(
        "SELECT a.id, a.job_id, a.granted, a.expires, a.begun, j.tries, j.deadline_seconds
         FROM attempts a JOIN jobs j ON j.id = a.job_id WHERE a.ended IS NULL ORDER BY a.id",
    )
    .fetch_all(&mut **tx)
    .await?;
    let mut over = Vec::new();
    for row in &rows {
        let lease = lease::Running {
            granted: row.try_get("granted")?,
            expires: row.try_get("expires")?,
            deadline_seconds: rows::number(row, "deadline_seconds")?,
            begun: rows::optional_moment(row, "begun")?.is_some(),
            tries: rows::number(row, "tries")?,
        };
        if let Some(next) = lease::over(&lease, heard.0, tx.now.0) {
            let fence = Fence(row.try_get("id")?);
            over.push((fence, JobId(rows::number(row, "job_id")?), next));
        }
    }
    // Others get their turn: the next pass goes on.
    over.truncate(usize::try_from(AT_ONCE).unwrap_or_default());
    Ok(over)
}

/// Counts for how long each class that waits was not served.
async fn look(tx: &mut Tx) -> Result<(), StoreError> {
    let looked: i64 = sqlx::query_scalar("SELECT looked FROM farm WHERE id = 1")
        .fetch_one(&mut **tx)
        .await?;
    let since = (tx.now.0 - looked).clamp(0, LOOK);
    sqlx::query("UPDATE farm SET looked = $1 WHERE id = 1")
        .bind(tx.now.0)
        .execute(&mut **tx)
        .await?;
    let here = here(tx).await?;
    let rows = sqlx::query(
        "SELECT id, requirements, unserved FROM classes c
         WHERE EXISTS (SELECT 1 FROM lanes l WHERE l.class_id = c.id AND l.queued > 0)",
    )
    .fetch_all(&mut **tx)
    .await?;
    for row in &rows {
        let wanted = rows::requirements(row)?;
        let before: i64 = row.try_get("unserved")?;
        let served = here.iter().any(|labels| labels.serves(&wanted).is_some());
        let after = if served { 0 } else { before + since };
        if after != before {
            sqlx::query("UPDATE classes SET unserved = $2 WHERE id = $1")
                .bind(row.try_get::<i64, _>("id")?)
                .bind(after)
                .execute(&mut **tx)
                .await?;
        }
    }
    Ok(())
}

/// What the workers that are here are, whether or not they take jobs now.
async fn here(tx: &mut Tx) -> Result<Vec<Labels>, StoreError> {
    let rows = sqlx::query("SELECT labels FROM sessions WHERE ended IS NULL AND seen > $1")
        .bind(tx.now.0 - LEASE)
        .fetch_all(&mut **tx)
        .await?;
    rows.iter().map(rows::labels).collect()
}
