//! Users and their tokens.

use kiln_core::farm::{Grants, TokenId, UserId};

use crate::{
    Store, StoreError,
    model::{Token, TokenHash, User},
    rows,
    tx::write,
};

/// A day, in microseconds.
const DAY: i64 = 24 * 60 * 60 * 1_000_000;

impl Store {
    /// Makes a user.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when there is one of that name.
    pub async fn add_user(
        &self,
        username: &str,
        email: &str,
        admin: bool,
    ) -> Result<User, StoreError> {
        write!(self, |tx| {
            let taken = sqlx::query("SELECT id FROM users WHERE username = $1")
                .bind(username)
                .fetch_optional(&mut **tx)
                .await?;
            if taken.is_some() {
                return Err(StoreError::Conflict(format!(
                    "there is a user {username} already"
                )));
            }
            let row = sqlx::query(
                "INSERT INTO users (username, email, admin, created, updated)
                 VALUES ($1, $2, $3, $4, $4) RETURNING *",
            )
            .bind(username)
            .bind(email)
            .bind(i64::from(admin))
            .bind(tx.now.0)
            .fetch_one(&mut **tx)
            .await?;
            rows::user(&row)?
        })
    }

    /// A user.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let row = sqlx::query("SELECT * FROM users WHERE id = $1")
            .bind(i64::from(id.0))
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(rows::user).transpose()
    }

    /// A user by its name, without `~`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn user_by_name(&self, username: &str) -> Result<Option<User>, StoreError> {
        let row = sqlx::query("SELECT * FROM users WHERE username = $1")
            .bind(username)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(rows::user).transpose()
    }

    /// All users, by name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn users(&self) -> Result<Vec<User>, StoreError> {
        let rows = sqlx::query("SELECT * FROM users ORDER BY username")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(rows::user).collect()
    }

    /// Refuses all tokens of a user from now on. Tells whether there is such a user.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn revoke_user(&self, username: &str) -> Result<bool, StoreError> {
        write!(self, |tx| {
            let done =
                sqlx::query("UPDATE users SET revoked = 1, updated = $2 WHERE username = $1")
                    .bind(username)
                    .bind(tx.now.0)
                    .execute(&mut **tx)
                    .await?;
            done.rows_affected() > 0
        })
    }

    /// Makes a token that ends after so many days, if it does.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when there is no such user.
    pub async fn add_token(
        &self,
        user: UserId,
        hash: TokenHash,
        grants: &Grants,
        days: Option<u32>,
    ) -> Result<Token, StoreError> {
        write!(self, |tx| {
            let row = sqlx::query(
                "INSERT INTO tokens (user_id, hash, grants, created, expires)
                 VALUES ($1, $2, $3, $4, $5) RETURNING *",
            )
            .bind(i64::from(user.0))
            .bind(rows::hex(hash))
            .bind(grants.to_string())
            .bind(tx.now.0)
            .bind(days.map(|days| tx.now.0 + i64::from(days) * DAY))
            .fetch_one(&mut **tx)
            .await?;
            rows::token(&row)?
        })
    }

    /// All tokens of a user, newest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn tokens(&self, user: UserId) -> Result<Vec<Token>, StoreError> {
        let rows = sqlx::query("SELECT * FROM tokens WHERE user_id = $1 ORDER BY id DESC")
            .bind(i64::from(user.0))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(rows::token).collect()
    }

    /// Takes a token back. Tells whether there is such a token.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn revoke_token(&self, id: TokenId) -> Result<bool, StoreError> {
        write!(self, |tx| {
            let done = sqlx::query("UPDATE tokens SET revoked = 1 WHERE id = $1")
                .bind(i64::from(id.0))
                .execute(&mut **tx)
                .await?;
            done.rows_affected() > 0
        })
    }

    /// Whose token that is and what it may do; none when it has ended or was taken
    /// back, or its user was.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn token(&self, hash: TokenHash) -> Result<Option<(User, Grants)>, StoreError> {
        let now = self.now().await?;
        let row = sqlx::query(
            "SELECT u.*, t.grants FROM tokens t JOIN users u ON u.id = t.user_id
             WHERE t.hash = $1 AND t.revoked = 0 AND u.revoked = 0
               AND (t.expires IS NULL OR t.expires > $2)",
        )
        .bind(rows::hex(hash))
        .bind(now.0)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref()
            .map(|row| Ok((rows::user(row)?, rows::grants(row)?)))
            .transpose()
    }
}
