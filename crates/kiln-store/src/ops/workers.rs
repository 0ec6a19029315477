//! Workers' registrations.

use kiln_core::farm::JobId;

use crate::{
    Store, StoreError,
    model::{TokenHash, Worker},
    rows,
    tx::write,
};

impl Store {
    /// Makes a worker's registration.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when there is one of that name whose token was not
    /// taken back.
    pub async fn add_worker(&self, name: &str, hash: TokenHash) -> Result<Worker, StoreError> {
        write!(self, |tx| {
            let taken = sqlx::query("SELECT id FROM workers WHERE name = $1 AND revoked = 0")
                .bind(name)
                .fetch_optional(&mut **tx)
                .await?;
            if taken.is_some() {
                return Err(StoreError::Conflict(format!(
                    "there is a worker {name} already"
                )));
            }
            let row = sqlx::query(
                "INSERT INTO workers (name, hash, created) VALUES ($1, $2, $3) RETURNING *",
            )
            .bind(name)
            .bind(rows::hex(hash))
            .bind(tx.now.0)
            .fetch_one(&mut **tx)
            .await?;
            rows::worker(&row)?
        })
    }

    /// Gives the registration of this name another token, or makes it: for a worker
    /// that is given its token anew at each start.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn renew_worker(&self, name: &str, hash: TokenHash) -> Result<(), StoreError> {
        write!(self, |tx| {
            let renewed =
                sqlx::query("UPDATE workers SET hash = $2 WHERE name = $1 AND revoked = 0")
                    .bind(name)
                    .bind(rows::hex(hash))
                    .execute(&mut **tx)
                    .await?;
            if renewed.rows_affected() == 0 {
                sqlx::query("INSERT INTO workers (name, hash, created) VALUES ($1, $2, $3)")
                    .bind(name)
                    .bind(rows::hex(hash))
                    .bind(tx.now.0)
                    .execute(&mut **tx)
                    .await?;
            }
        })
    }

    /// All registrations, by name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn workers(&self) -> Result<Vec<Worker>, StoreError> {
        let rows = sqlx::query("SELECT * FROM workers ORDER BY name, id")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(rows::worker).collect()
    }

    /// Takes a worker's token back. Its leases run out. Tells whether there is such
    /// a worker.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn revoke_worker(&self, name: &str) -> Result<bool, StoreError> {
        write!(self, |tx| {
            let done =
                sqlx::query("UPDATE workers SET revoked = 1 WHERE name = $1 AND revoked = 0")
                    .bind(name)
                    .execute(&mut **tx)
                    .await?;
            done.rows_affected() > 0
        })
    }

    /// Gives a worker's sessions no jobs, or again. Tells whether there is such a
    /// worker.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn pause_worker(&self, name: &str, why: Option<&str>) -> Result<bool, StoreError> {
        write!(self, |tx| {
            let done =
                sqlx::query("UPDATE workers SET paused = $2 WHERE name = $1 AND revoked = 0")
                    .bind(name)
                    .bind(why)
                    .execute(&mut **tx)
                    .await?;
            done.rows_affected() > 0
        })
    }

    /// Whose worker token that is; none when it was taken back.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn worker(&self, hash: TokenHash) -> Result<Option<Worker>, StoreError> {
        let row = sqlx::query("SELECT * FROM workers WHERE hash = $1 AND revoked = 0")
            .bind(rows::hex(hash))
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(rows::worker).transpose()
    }

    /// The job of a lease that has not ended, by the token in its guest.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn job_token(&self, hash: TokenHash) -> Result<Option<JobId>, StoreError> {
        let row = sqlx::query("SELECT job_id FROM attempts WHERE token = $1 AND ended IS NULL")
            .bind(rows::hex(hash))
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref()
            .map(|row| Ok(JobId(rows::number(row, "job_id")?)))
            .transpose()
    }
}
