//! The schema and how it came to be.
//!
//! Migrations are numbered from 1 and never change once released. Each is applied in
//! one transaction with the note that it was, so a server that dies meanwhile leaves
//! the schema as it was.

use sqlx::{Executor as _, Row as _};

use crate::{OpenError, Store, StoreError, open::spelled, tx::Tx};

/// All migrations, in order.
pub(crate) const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_farm.sql"),
    include_str!("../migrations/0002_chunks.sql"),
];

/// Brings the schema up to date, or says why it is not.
pub(crate) async fn run(store: &Store, all: &[&str], may: bool) -> Result<(), OpenError> {
    let mut tx = store.write().await?;
    let done = apply(&mut tx, store, all, may).await?;
    if done {
        tx.commit().await?;
    }
    Ok(())
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self(format!("the database can't be used: {error}"))
    }
}

async fn apply(tx: &mut Tx, store: &Store, all: &[&str], may: bool) -> Result<bool, OpenError> {
    let sql = |error: sqlx::Error| OpenError::from(StoreError::from(error));
    tx.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY, applied BIGINT NOT NULL)")
        .await
        .map_err(sql)?;
    let version: i64 = sqlx::query("SELECT COALESCE(MAX(version), 0) FROM schema_version")
        .fetch_one(&mut **tx)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(sql)?;
    let known = i64::try_from(all.len()).unwrap_or(i64::MAX);
    if version > known {
        return Err(OpenError(format!(
            "the database is of a newer kiln (its schema is version {version}, this kiln knows up to {known}); use that kiln, or a copy of the database from before"
        )));
    }
    if version < known && !may {
        return Err(OpenError(format!(
            "the database's schema is version {version} and this kiln's is {known}; start `kiln serve` once, which brings it up to date"
        )));
    }
    for (number, text) in (1..).zip(all).filter(|(number, _)| *number > version) {
        tx.execute(sqlx::raw_sql(spelled(store.engine, text)))
            .await
            .map_err(sql)?;
        sqlx::query("INSERT INTO schema_version (version, applied) VALUES ($1, $2)")
            .bind(number)
            .bind(tx.now.0)
            .execute(&mut **tx)
            .await
            .map_err(sql)?;
    }
    Ok(version < known)
}
