//! A transaction that writes.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use sqlx::{Any, AnyConnection, Executor as _, Transaction};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};

use crate::{Store, StoreError, dialect::Engine, model::Moment, pool::WRITE};

/// A second, as moments count.
pub(crate) const SECOND: i64 = 1_000_000;
/// How often a transaction is done again that fell victim to another.
const AGAIN: u32 = 8;

/// A transaction that writes. Undone unless [`Tx::commit`] returns.
pub(crate) struct Tx {
    inner: Transaction<'static, Any>,
    /// When it began, by the database's clock. What one operation writes has one time.
    pub(crate) now: Moment,
    pub(crate) engine: Engine,
    // After `inner`: dropped, and let go, after it.
    _turn: Turn,
}

/// What is let go with a transaction.
enum Turn {
    /// Of the one that writes.
    Alone(#[expect(dead_code, reason = "it is dropped")] OwnedMutexGuard<()>),
    /// Of one of some.
    Beside(#[expect(dead_code, reason = "it is dropped")] OwnedSemaphorePermit),
}

impl Store {
    /// Begins one that is alone: no other one writes until it has ended.
    pub(crate) async fn write(&self) -> Result<Tx, StoreError> {
        let turn = self.writer.clone().lock_owned().await;
        self.begin(Turn::Alone(turn)).await
    }

    /// Begins one beside others, where the database has that: it must lock each row that it
    /// decides by. See [`Engine::keep`]. There are never so many that nothing else has a
    /// connection, however long they wait for rows.
    pub(crate) async fn write_beside(&self) -> Result<Tx, StoreError> {
        if self.engine.only_writer().is_none() {
            return self.write().await;
        }
        let beside = Arc::clone(&self.beside).acquire_owned().await;
        let beside = beside.map_err(|closed| StoreError::Unavailable(closed.into()))?;
        self.begin(Turn::Beside(beside)).await
    }

    async fn begin(&self, turn: Turn) -> Result<Tx, StoreError> {
        let mut inner = self.pool.begin(self.engine.begin()).await?;
        if let (Turn::Alone(_), Some(lock)) = (&turn, self.engine.only_writer()) {
            inner.execute(lock).await?;
        }
        let now = sqlx::query_scalar(self.engine.now())
            .fetch_one(&mut *inner)
            .await?;
        Ok(Tx {
            inner,
            now: Moment(now),
            engine: self.engine,
            _turn: turn,
        })
    }
}

impl Store {
    /// What a transaction comes to, unless that takes too long: then it is undone, if
    /// the database hears of it, or has been done.
    pub(crate) async fn in_time<T>(
        &self,
        transaction: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let done = tokio::time::timeout(self.pool.limit(WRITE), transaction).await;
        let done = done.unwrap_or_else(|late| {
            let late = std::io::Error::new(std::io::ErrorKind::TimedOut, late);
            Err(sqlx::Error::Io(late).into())
        });
        if let Err(error) = &done
            && cause(error).is_some_and(Engine::ended)
        {
            self.pool.broke();
        }
        done
    }
}

/// What of the database's driver is behind an error.
fn cause(error: &StoreError) -> Option<&sqlx::Error> {
    match error {
        StoreError::Unavailable(source) => source.downcast_ref(),
        _ => None,
    }
}

impl Tx {
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        Ok(self.inner.commit().await?)
    }
}

impl Deref for Tx {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.inner
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }
}

/// Whether to do a transaction again, for the `count`th time, after this error.
pub(crate) fn again(error: &StoreError, count: u32) -> bool {
    let database = cause(error).and_then(sqlx::Error::as_database_error);
    count < AGAIN && database.is_some_and(Engine::again)
}

/// Does something in a transaction and commits it; again, when it fell victim to
/// another one. The body is an expression that may use `?`, and may be evaluated more
/// than once.
macro_rules! write {
    ($store:expr, |$tx:ident| $body:expr) => {
        $crate::tx::write!($store, write, |$tx| $body)
    };
    ($store:expr, $begin:ident, |$tx:ident| $body:expr) => {{
        let mut count = 0;
        loop {
            let done = async {
                let mut owned = $store.$begin().await?;
                let $tx = &mut owned;
                let value = $body;
                owned.commit().await?;
                Ok(value)
            };
            let done = $store.in_time(done).await;
            match done {
                Err(error) if $crate::tx::again(&error, count) => count += 1,
                done => break done,
            }
        }
    }};
}
pub(crate) use write;
