//! Connections, and how long anybody waits for them.
//!
//! What reads uses [`Pool`] as sqlx's own pool is used: one statement, one connection.
//! Each has its time. sqlx itself waits for ever for an answer that does not come, as
//! from a network that drops packets without a word; and a connection that somebody
//! stopped waiting for is not used again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, future, stream};
use sqlx::{
    Any, AnyConnection, AnyPool, Connection as _, Describe, Either, Error, Execute, Executor,
    Row as _, SqlStr, Transaction,
    any::{AnyPoolOptions, AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo},
    pool::{PoolConnection, PoolConnectionMetadata},
};
use tokio::time::timeout;

use crate::{breaker::Breaker, dialect::Engine};

/// How long a connection is waited for, a free one or a new one.
pub(crate) const ACQUIRE: Duration = Duration::from_secs(5);
/// How long one statement that reads may take.
const READ: Duration = Duration::from_secs(10);
/// How long a transaction that writes may take, with what it waits for: its turn, and rows.
pub(crate) const WRITE: Duration = Duration::from_secs(20);
/// How long a connection may take to say that it is there.
const PING: Duration = Duration::from_secs(2);
/// One that was used so lately is there.
const FRESH: Duration = Duration::from_millis(100);

/// Connections to one database.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    pool: AnyPool,
    engine: Engine,
    breaker: Arc<Breaker>,
}

fn late(what: &str) -> Error {
    let error = std::io::Error::new(std::io::ErrorKind::TimedOut, what.to_owned());
    Error::Io(error)
}

impl Pool {
    /// A pool without connections yet.
    pub(crate) fn new(
        engine: Engine,
        options: AnyPoolOptions,
        connect: sqlx::any::AnyConnectOptions,
    ) -> Self {
        let breaker = Arc::new(Breaker::default());
        let options = match engine {
            Engine::Sqlite => options,
            Engine::Postgres => tested(options, &breaker),
        };
        Self {
            pool: options.connect_lazy_with(connect),
            engine,
            breaker,
        }
    }

    /// How long something may take. With SQLite that is a matter of the disk alone.
    pub(crate) fn limit(&self, limit: Duration) -> Duration {
        match self.engine {
            Engine::Sqlite => Duration::MAX,
            Engine::Postgres => limit,
        }
    }

    /// Ends all connections, when what uses them has ended.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    /// Begins a transaction.
    pub(crate) async fn begin(
        &self,
        how: &'static str,
    ) -> Result<Transaction<'static, Any>, Error> {
        let doubt = Doubt(&self.breaker);
        let begun = self.gated(|| self.pool.begin_with(how)).await;
        // Also when an error is the answer: of two tries the first may have been given up.
        if begun.is_ok() {
            std::mem::forget(doubt);
        }
        begun
    }

    async fn acquire(&self) -> Result<PoolConnection<Any>, Error> {
        self.gated(|| self.pool.acquire()).await
    }

    /// Nobody waits for a database of which it is known that it is away.
    async fn gated<T, F>(&self, wanted: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        if self.engine == Engine::Sqlite {
            return wanted().await;
        }
        let began = Instant::now();
        if !self.breaker.may_ask(began) {
            return Err(self.breaker.told(late("it is away")));
        }
        let had = timeout(ACQUIRE + PING, async {
            match wanted().await {
                // It was used a moment ago and broke since. So did all that are as old.
                Err(error) if Engine::ended(&error) => {
                    self.broke();
                    wanted().await
                }
                had => had,
            }
        });
        let had = had.await.unwrap_or_else(|_| Err(late("no connection")));
        match &had {
            Ok(_) => {
                if self.breaker.answered(Instant::now()) {
                    tracing::info!("the database answers again");
                }
            }
            Err(error) => {
                if self.breaker.refused(began, Instant::now()) {
                    tracing::error!("the database is away: {error}");
                }
            }
        }
        had.map_err(|error| self.breaker.told(error))
    }

    /// One statement on a connection of its own.
    async fn once<T>(
        &self,
        statement: impl AsyncFnOnce(&mut AnyConnection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut connection = self.acquire().await?;
        let done = timeout(self.limit(READ), statement(&mut connection)).await;
        let done = done.unwrap_or_else(|_| Err(late("no answer")));
        if done.as_ref().is_err_and(Engine::ended) {
            self.breaker.broke(Instant::now());
            connection.close_on_drop();
        }
        done
    }

    /// A connection broke, or took too long.
    pub(crate) fn broke(&self) {
        self.breaker.broke(Instant::now());
    }
}

/// Somebody may give up in the middle of a `BEGIN`: dropped, all connections are doubted. The
/// driver counts a transaction only from the answer on, so nothing would end that one, and
/// what is written next on its connection would be committed by chance.
struct Doubt<'a>(&'a Breaker);

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        self.0.broke(Instant::now());
    }
}

/// Connections are tried before they are used, if there is doubt, and afterwards, and
/// not for long.
fn tested(options: AnyPoolOptions, breaker: &Arc<Breaker>) -> AnyPoolOptions {
    let before = Arc::clone(breaker);
    options
        .test_before_acquire(false)
        .before_acquire(move |connection, known| {
            let doubtful = known.idle_for >= FRESH || before.doubts(made(&known));
            async move {
                if doubtful {
                    is_free(connection).await
                } else {
                    Ok(true)
                }
            }
            .boxed()
        })
        // sqlx does so as well, and without an end.
        .after_release(|connection, _| is_there(connection).boxed())
}

fn made(known: &PoolConnectionMetadata) -> Instant {
    let now = Instant::now();
    now.checked_sub(known.age).unwrap_or(now)
}

async fn is_there(connection: &mut AnyConnection) -> Result<bool, Error> {
    let answered = timeout(PING, connection.ping()).await;
    answered
        .unwrap_or_else(|_| Err(late("no answer")))
        .map(|()| true)
}

/// Whether it is there, and in no transaction that somebody else left. A transaction's time is
/// that of its first statement; this one is sent as one message, which has one time.
async fn is_free(connection: &mut AnyConnection) -> Result<bool, Error> {
    let asked = sqlx::raw_sql("SELECT now() = statement_timestamp()");
    let answered = timeout(PING, connection.fetch_one(asked)).await;
    answered
        .unwrap_or_else(|_| Err(late("no answer")))?
        .try_get(0)
}

impl<'p> Executor<'p> for &'p Pool {
    type Database = Any;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> stream::BoxStream<'e, Result<Either<AnyQueryResult, AnyRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let all = self.once(async move |connection: &mut AnyConnection| {
            connection.fetch_many(query).try_collect::<Vec<_>>().await
        });
        let each = |found: Vec<_>| stream::iter(found.into_iter().map(Ok));
        all.into_stream().map_ok(each).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> future::BoxFuture<'e, Result<Option<AnyRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Any>,
    {
        self.once(async move |connection: &mut AnyConnection| {
            connection.fetch_optional(query).await
        })
        .boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [AnyTypeInfo],
    ) -> future::BoxFuture<'e, Result<AnyStatement, Error>>
    where
        'p: 'e,
    {
        self.once(async move |connection: &mut AnyConnection| {
            connection.prepare_with(sql, parameters).await
        })
        .boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> future::BoxFuture<'e, Result<Describe<Any>, Error>>
    where
        'p: 'e,
    {
        self.once(async move |connection: &mut AnyConnection| connection.describe(sql).await)
            .boxed()
    }
}
