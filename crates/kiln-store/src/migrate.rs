//! The schema and how it came to be.
//!
//! Migrations are numbered from 1 and never change once released. Each is applied in
//! one transaction with the note that it was, so a server that dies meanwhile leaves
//! the schema as it was. A schema that is up to date is only read: a role that can't
//! change tables is enough for that.

use sqlx::Executor as _;

use crate::{OpenError, Store, StoreError, dialect::Engine, open::spelled, tx::Tx};

/// All migrations, in order.
pub(crate) const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_farm.sql"),
    include_str!("../migrations/0002_chunks.sql"),
    include_str!("../migrations/0003_retention.sql"),
    include_str!("../migrations/0004_voices.sql"),
    include_str!("../migrations/0005_bus.sql"),
    include_str!("../migrations/0006_keys.sql"),
];

/// Brings the schema up to date, or says why it is not.
pub(crate) async fn run(store: &Store, all: &[&str], may: bool) -> Result<(), OpenError> {
    let known = i64::try_from(all.len()).unwrap_or(i64::MAX);
    let version = version(store).await?;
    if version > known {
        return Err(OpenError::Wrong(format!(
            "the database is of a newer kiln (its schema is version {version}, this kiln knows up to {known}); use that kiln, or a copy of the database from before"
        )));
    }
    if version == known {
        return Ok(());
    }
    if !may {
        return Err(OpenError::Wrong(format!(
            "the database's schema is version {version} and this kiln's is {known}; `kiln admin migrate` brings it up to date, and so does `kiln serve` where it may"
        )));
    }
    let applied = async {
        let mut tx = store.write().await?;
        apply(&mut tx, store, all).await?;
        tx.commit().await
    };
    applied.await.map_err(|error| match error {
        StoreError::Unavailable(source) if forbidden(&*source) => OpenError::Wrong(format!(
            "the database's schema is version {version} and this kiln's is {known}, and this role may not change it: `kiln admin migrate` with the role that owns the tables does"
        )),
        error => error.into(),
    })
}

fn forbidden(source: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    source.downcast_ref().is_some_and(Engine::forbidden)
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        let text = format!("the database can't be used: {error}");
        match error {
            StoreError::Unavailable(source) => match source.downcast_ref() {
                Some(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut) => Self::Away(text),
                _ => Self::Wrong(text),
            },
            _ => Self::Wrong(text),
        }
    }
}

/// The schema's version; 0 where there is none.
async fn version(store: &Store) -> Result<i64, OpenError> {
    let read = async {
        let there: i64 = sqlx::query_scalar(store.engine.has_table())
            .bind("schema_version")
            .fetch_one(&store.pool)
            .await?;
        if there == 0 {
            return Ok(0);
        }
        sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM schema_version")
            .fetch_one(&store.pool)
            .await
    };
    read.await.map_err(|error| {
        if Engine::forbidden(&error) {
            OpenError::Wrong(
                "this role may not read the farm's tables: the operator's page says what to GRANT it".into(),
            )
        } else {
            StoreError::from(error).into()
        }
    })
}

/// Applies what is missing. Another server may have done it meanwhile.
async fn apply(tx: &mut Tx, store: &Store, all: &[&str]) -> Result<(), StoreError> {
    tx.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY, applied BIGINT NOT NULL)")
        .await?;
    let version: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM schema_version")
        .fetch_one(&mut **tx)
        .await?;
    if let Some(patience) = store.engine.patience() {
        tx.execute(patience).await?;
    }
    for (number, text) in (1i64..).zip(all).filter(|(number, _)| *number > version) {
        tx.execute(sqlx::raw_sql(spelled(store.engine, text)))
            .await?;
        sqlx::query("INSERT INTO schema_version (version, applied) VALUES ($1, $2)")
            .bind(number)
            .bind(tx.now.0)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}
