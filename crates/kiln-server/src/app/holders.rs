//! Who reports, and for which job: not asked of the database with each report.
//!
//! Nothing is decided by this alone: each report is done under its lease, and the database
//! looks at that.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use kiln_core::farm::{Fence, JobId, SessionId, WorkerId};
use kiln_store::{
    Store, StoreError,
    model::{LeaseKey, TokenHash},
};

/// How long a worker may go on reporting whose token was taken back.
const TOKEN: Duration = Duration::from_secs(1);
/// How many of each kind are kept.
const KEPT: usize = 4096;

/// What is known of those who report.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    workers: Kept<TokenHash, (WorkerId, Instant)>,
    /// Whose each lease is, or was, and for which job: that never changes.
    jobs: Kept<Fence, (WorkerId, SessionId, JobId)>,
}

impl Holders {
    /// Whose worker token that is, or was a moment ago.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn worker(
        &self,
        store: &Store,
        token: TokenHash,
    ) -> Result<Option<WorkerId>, StoreError> {
        if let Some((worker, asked)) = self.workers.get(&token)
            && asked.elapsed() < TOKEN
        {
            return Ok(Some(worker));
        }
        let asked = Instant::now();
        let worker = store.worker(token).await?.map(|worker| worker.id);
        if let Some(worker) = worker {
            self.workers.put(token, (worker, asked));
        }
        Ok(worker)
    }

    /// The job of a lease, if that is this session's, or was.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`], and when the database fails.
    pub(crate) async fn job(
        &self,
        store: &Store,
        lease: LeaseKey<'_>,
    ) -> Result<JobId, StoreError> {
        if let Some((worker, session, job)) = self.jobs.get(&lease.fence)
            && (worker, &session) == (lease.worker, lease.session)
        {
            return Ok(job);
        }
        let job = store.holds(lease).await?;
        let whose = (lease.worker, lease.session.clone(), job);
        self.jobs.put(lease.fence, whose);
        Ok(job)
    }

    /// A lease has ended: who goes on reporting under it is looked up.
    pub(crate) fn forget(&self, fence: Fence) {
        self.jobs.lock().remove(&fence);
    }
}

/// A map of so many: when it is full it begins anew.
#[derive(Debug)]
struct Kept<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Kept<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        self.lock().get(key).cloned()
    }

    fn put(&self, key: K, value: V) {
        let mut all = self.lock();
        if all.len() >= KEPT {
            all.clear();
        }
        all.insert(key, value);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
