//! What several servers need of each other: who speaks with a session, and the key with
//! which what is said between servers is sealed.

use kiln_core::farm::SessionId;
use sqlx::Row as _;

use crate::{Store, StoreError, model::Voice, rows, tx::write};

impl Store {
    /// Whether this voice is still the one that speaks for its session.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn speaks(&self, session: &SessionId, voice: Voice) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM sessions WHERE id = $1 AND voice = $2")
            .bind(session.as_str())
            .bind(voice.0)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_some())
    }

    /// The key that only the farm's servers know. It is made when it is first wanted.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], also when there are no random numbers.
    pub async fn bus_key(&self) -> Result<[u8; 32], StoreError> {
        let mut new = [0; 32];
        rustix::rand::getrandom(&mut new, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| StoreError::Unavailable(error.into()))?;
        let key: String = write!(self, |tx| {
            sqlx::query("UPDATE farm SET bus_key = COALESCE(bus_key, $1) RETURNING bus_key")
                .bind(rows::digits(&new))
                .fetch_one(&mut **tx)
                .await?
                .try_get("bus_key")?
        })?;
        read(&key)
            .ok_or_else(|| StoreError::Unavailable("the bus's key in the database is none".into()))
    }
}

fn read(digits: &str) -> Option<[u8; 32]> {
    let pairs = digits.as_bytes().chunks_exact(2);
    let bytes: Option<Vec<u8>> = pairs
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    bytes?.try_into().ok()
}
