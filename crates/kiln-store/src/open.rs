//! Opening a store, and copying it.

use std::{os::unix::fs::OpenOptionsExt as _, path::Path, str::FromStr as _, sync::Arc};

use sqlx::{
    AnyConnection, AssertSqlSafe, Connection as _, Executor as _,
    any::{AnyConnectOptions, AnyPoolOptions},
};
use tokio::sync::{Mutex, Semaphore};

use crate::{
    Config, OpenError, Store, StoreError,
    dialect::Engine,
    group, migrate,
    pool::{ACQUIRE, Pool},
};

/// Connections of one server, unless told otherwise. Each waits for the disk most of the
/// time.
pub const CONNECTIONS: u32 = 16;

impl Store {
    /// Opens it, and brings the schema up to date if told to.
    ///
    /// # Errors
    /// When it can't be reached, when it is a newer kiln's, or when it is an older
    /// one's and may not be changed.
    pub async fn open(config: &Config) -> Result<Self, OpenError> {
        Self::open_with(config, CONNECTIONS).await
    }

    /// The same, with so many connections at the most.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with(config: &Config, connections: u32) -> Result<Self, OpenError> {
        sqlx::any::install_default_drivers();
        let engine = Engine::of(&config.url).ok_or_else(|| {
            OpenError::Wrong(
                "the database is no URL that kiln knows; write sqlite:///path/to/file or postgres://user@host/name"
                    .into(),
            )
        })?;
        let pool = connect(engine, config, connections).await?;
        let store = Self {
            pool,
            engine,
            writer: Arc::new(Mutex::new(())),
            beside: Arc::new(Semaphore::new((connections / 2).max(1) as usize)),
            grouped: group::Queue::default(),
        };
        migrate::run(&store, migrate::MIGRATIONS, config.migrate).await?;
        Ok(store.grouping())
    }

    /// Ends the connections of all clones. With SQLite all that was written is in the
    /// database's one file then.
    pub async fn close(self) {
        self.pool.close().await;
    }

    /// Copies a SQLite store while it is used, as it is at one moment, into a file
    /// that is not there yet.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when there is such a file, or when the store is not
    /// SQLite's: then it names the tool to use.
    pub async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        if self.engine != Engine::Sqlite {
            return Err(StoreError::Conflict(
                "the state is in PostgreSQL: use pg_dump for a copy of it".into(),
            ));
        }
        let Some(path) = to.to_str() else {
            return Err(StoreError::Conflict("the copy's path is not UTF-8".into()));
        };
        // Refuses to overwrite, and holds the place: VACUUM takes an empty file.
        private(to).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                StoreError::Conflict(format!("{path} is there already; it is left as it is"))
            }
            _ => StoreError::Unavailable(format!("{path} can't be made: {error}").into()),
        })?;
        let copied = sqlx::query("VACUUM INTO $1")
            .bind(path)
            .execute(&self.pool)
            .await;
        if copied.is_err() {
            // What is there is ours and no copy.
            drop(std::fs::remove_file(to));
        }
        copied?;
        std::fs::File::open(to)
            .and_then(|file| file.sync_all())
            .map_err(|error| StoreError::Unavailable(error.into()))
    }
}

/// A new file that others can't read: it will have people's addresses.
fn private(path: &Path) -> std::io::Result<std::fs::File> {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

async fn connect(engine: Engine, config: &Config, connections: u32) -> Result<Pool, OpenError> {
    let memory = engine == Engine::Sqlite && config.url.contains(":memory:");
    let options = AnyPoolOptions::new()
        .acquire_timeout(ACQUIRE)
        // SQLite itself undoes a transaction for which the disk is full. The driver's own
        // ROLLBACK fails then, and it believes for ever to be inside the transaction.
        .before_acquire(|connection, _| {
            let usable = !connection.is_in_transaction();
            Box::pin(async move { Ok(usable) })
        })
        .after_connect(move |connection, _| {
            Box::pin(async move {
                connection
                    .execute(sqlx::raw_sql(engine.settings()))
                    .await
                    .map(drop)
            })
        });
    // In memory, a database lives as long as its one connection.
    let options = if memory {
        options
            .max_connections(1)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
    } else {
        options.max_connections(connections)
    };
    let how = AnyConnectOptions::from_str(&url(engine, config, memory));
    let how = how.map_err(|error| failed(engine, config, &error))?;
    let opening = async {
        // A pool tries for long and then tells only that it did.
        let mut first = AnyConnection::connect_with(&how).await?;
        first.execute(sqlx::raw_sql(engine.settings())).await?;
        first.close().await
    };
    match tokio::time::timeout(ACQUIRE, opening).await {
        Ok(Ok(())) => Ok(Pool::new(engine, options, how)),
        Ok(Err(error)) => Err(failed(engine, config, &error)),
        Err(_) => Err(OpenError::Away(format!(
            "the database {} does not answer within {} s",
            which(engine, config),
            ACQUIRE.as_secs()
        ))),
    }
}

/// What is said of a database: a URL of PostgreSQL's may have a password.
fn which(engine: Engine, config: &Config) -> &str {
    match engine {
        Engine::Sqlite => &config.url,
        Engine::Postgres => "in PostgreSQL",
    }
}

fn failed(engine: Engine, config: &Config, error: &sqlx::Error) -> OpenError {
    let text = format!(
        "the database {} can't be opened: {error}",
        which(engine, config)
    );
    if engine.may_come(error) {
        OpenError::Away(text)
    } else {
        OpenError::Wrong(text)
    }
}

/// SQLite makes a file only when told, and only who may bring a schema there may.
fn url(engine: Engine, config: &Config, memory: bool) -> String {
    let url = &config.url;
    if engine != Engine::Sqlite || memory || url.contains("mode=") {
        return url.clone();
    }
    let between = if url.contains('?') { '&' } else { '?' };
    let mode = if config.migrate { "rwc" } else { "rw" };
    format!("{url}{between}mode={mode}")
}

/// A migration's text for an engine.
pub(crate) fn spelled(engine: Engine, text: &str) -> AssertSqlSafe<String> {
    // Texts of this crate alone, with a word of this crate.
    AssertSqlSafe(text.replace("id IDENTITY", &format!("id {}", engine.identity())))
}
