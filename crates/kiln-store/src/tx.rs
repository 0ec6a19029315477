//! A transaction that writes.

use std::ops::{Deref, DerefMut};

use sqlx::{Any, AnyConnection, Executor as _, Transaction};
use tokio::sync::OwnedMutexGuard;

use crate::{Store, StoreError, dialect::Engine, model::Moment};

/// How often a transaction is done again that fell victim to another.
const AGAIN: u32 = 8;

/// A transaction that writes. Undone unless [`Tx::commit`] returns.
pub(crate) struct Tx {
    inner: Transaction<'static, Any>,
    /// When it began, by the database's clock. What one operation writes has one time.
    pub(crate) now: Moment,
    // After `inner`: dropped, and let go, after it.
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Store {
    /// Begins one that is alone: no other one writes until it has ended.
    pub(crate) async fn write(&self) -> Result<Tx, StoreError> {
        let turn = self.writer.clone().lock_owned().await;
        self.begin(Some(turn)).await
    }

    /// Begins one beside others, where the database has that: it must lock each row that it
    /// decides by. See [`Engine::share`].
    pub(crate) async fn write_beside(&self) -> Result<Tx, StoreError> {
        if self.engine.only_writer().is_none() {
            return self.write().await;
        }
        self.begin(None).await
    }

    async fn begin(&self, turn: Option<OwnedMutexGuard<()>>) -> Result<Tx, StoreError> {
        let mut inner = self.pool.begin_with(self.engine.begin()).await?;
        if let Some(lock) = self.engine.only_writer().filter(|_| turn.is_some()) {
            inner.execute(lock).await?;
        }
        let now = sqlx::query_scalar(self.engine.now())
            .fetch_one(&mut *inner)
            .await?;
        Ok(Tx {
            inner,
            now: Moment(now),
            _turn: turn,
        })
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
    let StoreError::Unavailable(source) = error else {
        return false;
    };
    let database = source
        .downcast_ref::<sqlx::Error>()
        .and_then(sqlx::Error::as_database_error);
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
            let done: Result<_, $crate::StoreError> = async {
                let mut owned = $store.$begin().await?;
                let $tx = &mut owned;
                let value = $body;
                owned.commit().await?;
                Ok(value)
            }
            .await;
            match done {
                Err(error) if $crate::tx::again(&error, count) => count += 1,
                done => break done,
            }
        }
    }};
}
pub(crate) use write;
