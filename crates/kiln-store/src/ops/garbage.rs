//! Objects that no row refers to, rows that nobody needs, and which server looks after them.

use sqlx::Row as _;

use crate::{
    Store, StoreError,
    model::Moment,
    tx::{SECOND, Tx, write},
};

/// After so long an object that could not be removed is tried again.
const AGAIN: i64 = 10 * 60 * SECOND;
/// Rows that are removed in one transaction, so that others get their turn.
const AT_ONCE: i64 = 500;

impl Store {
    /// Objects, and begins of keys (with a slash at the end), that may be removed now; so many
    /// at the most.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn garbage(&self, most: u32) -> Result<Vec<String>, StoreError> {
        let now = self.now().await?;
        let rows =
            sqlx::query("SELECT object FROM garbage WHERE due <= $1 ORDER BY due, object LIMIT $2")
                .bind(now.0)
                .bind(i64::from(most))
                .fetch_all(&self.pool)
                .await?;
        rows.iter().map(|row| Ok(row.try_get("object")?)).collect()
    }

    /// Forgets garbage that was removed; what could not be is tried again some minutes
    /// later.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn collected(&self, gone: &[String], failed: &[String]) -> Result<(), StoreError> {
        write!(self, |tx| {
            for object in gone {
                sqlx::query("DELETE FROM garbage WHERE object = $1")
                    .bind(object)
                    .execute(&mut **tx)
                    .await?;
            }
            for object in failed {
                sqlx::query("UPDATE garbage SET due = $2 WHERE object = $1")
                    .bind(object)
                    .bind(tx.now.0 + AGAIN)
                    .execute(&mut **tx)
                    .await?;
            }
        })
    }

    /// Removes rows that are older than this moment and that nobody needs: sessions that were
    /// never given a job and were last heard of before it, the keys of submissions, and
    /// events of the outbox. Gives how many went; there may be more.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn tidy(&self, before: Moment) -> Result<u64, StoreError> {
        // Numbers grow with time: no more is read than is removed.
        let texts = [
            "DELETE FROM outbox WHERE id IN
                (SELECT id FROM (SELECT id, created FROM outbox ORDER BY id LIMIT $2) oldest
                 WHERE created < $1)",
            "UPDATE jobs SET idempotency = NULL, idempotency_hash = NULL WHERE id IN
                (SELECT id FROM (SELECT id, created FROM jobs WHERE idempotency IS NOT NULL
                    ORDER BY id LIMIT $2) oldest
                 WHERE created < $1)",
            "DELETE FROM sessions WHERE id IN
                (SELECT s.id FROM sessions s WHERE s.seen < $1 AND NOT EXISTS
                    (SELECT 1 FROM attempts a WHERE a.session_id = s.id) LIMIT $2)",
        ];
        let mut gone = 0;
        for text in texts {
            // One transaction each, so that others get their turn.
            gone += write!(self, |tx| {
                let query = sqlx::query(text).bind(before.0).bind(AT_ONCE);
                query.execute(&mut **tx).await?.rows_affected()
            })?;
        }
        Ok(gone)
    }

    /// Takes a duty for so many seconds, or goes on with it: true unless another holder has
    /// it. What is done must do no harm when two do it: a holder may freeze, and go on later.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn take_duty(
        &self,
        name: &str,
        holder: &str,
        seconds: u32,
    ) -> Result<bool, StoreError> {
        write!(self, |tx| {
            let taken = sqlx::query(
                "INSERT INTO duties (name, holder, until) VALUES ($1, $2, $3)
                 ON CONFLICT (name) DO UPDATE SET holder = $2, until = $3
                 WHERE duties.holder = $2 OR duties.until <= $4 OR duties.until > $3",
            )
            .bind(name)
            .bind(holder)
            .bind(tx.now.0 + i64::from(seconds) * SECOND)
            .bind(tx.now.0)
            .execute(&mut **tx)
            .await?;
            taken.rows_affected() == 1
        })
    }

    /// The farm's name among those whose objects may be in one place: `new` if it has none
    /// yet.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn identity(&self, new: &str) -> Result<String, StoreError> {
        write!(self, |tx| {
            let row = sqlx::query(
                "UPDATE farm SET identity = COALESCE(identity, $1) WHERE id = 1
                 RETURNING identity",
            )
            .bind(new)
            .fetch_one(&mut **tx)
            .await?;
            row.try_get::<String, _>("identity")?
        })
    }
}

/// Notes objects that may be removed from this moment on.
pub(crate) async fn add(tx: &mut Tx, objects: &[String], due: Moment) -> Result<(), StoreError> {
    for object in objects {
        sqlx::query(
            "INSERT INTO garbage (object, due) VALUES ($1, $2) ON CONFLICT (object) DO NOTHING",
        )
        .bind(object)
        .bind(due.0)
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}
