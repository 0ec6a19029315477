//! Sessions of workers and what they have leases for.

#![allow(unused, clippy::todo, missing_docs)]
use kiln_core::{
    farm::*,
    job::{JobStatus, TaskStatus},
};

use crate::{Store, StoreError, model::*};

impl Store {
    /// A session says hello with the leases it believes to have. Gives those that are not its own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hello(&self, worker: WorkerId, session: &Hello) -> Result<Vec<Fence>, StoreError> {
        todo!()
    }

    /// A session's state has changed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_state(
        &self,
        session: &SessionId,
        state: &SessionState,
    ) -> Result<Changed, StoreError> {
        todo!()
    }

    /// Renews these leases of a session. Gives those that are not its own, or have ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn renew(
        &self,
        session: &SessionId,
        leases: &[Fence],
    ) -> Result<Vec<Fence>, StoreError> {
        todo!()
    }

    /// A worker went away in peace: it has no leases and comes not again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_session(&self, session: &SessionId) -> Result<(), StoreError> {
        todo!()
    }

    /// Sessions that were seen within the last lease, with their leases.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sessions(&self) -> Result<Vec<Session>, StoreError> {
        todo!()
    }

    /// The leases of a session that have not ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn leases(&self, session: &SessionId) -> Result<Vec<Lease>, StoreError> {
        todo!()
    }

    /// One lease that has not ended, if it is that session's and that worker's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn lease(
        &self,
        worker: WorkerId,
        session: &SessionId,
        fence: Fence,
    ) -> Result<Option<Lease>, StoreError> {
        todo!()
    }

    /// Keeps the hash of the token that this lease's guest is given.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_lease_token(&self, fence: Fence, hash: TokenHash) -> Result<(), StoreError> {
        todo!()
    }

    /// One pass: matches free slots with the queue and writes attempts and leases, in one transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn assign(&self) -> Result<Changed, StoreError> {
        todo!()
    }

    /// Says under a lease that a task may start now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begun(&self, lease: LeaseKey<'_>) -> Result<Changed, StoreError> {
        todo!()
    }

    /// Moves a task.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_task(
        &self,
        lease: LeaseKey<'_>,
        task: &str,
        status: TaskStatus,
    ) -> Result<Changed, StoreError> {
        todo!()
    }

    /// Keeps what a source was cloned at.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_source(
        &self,
        lease: LeaseKey<'_>,
        index: u32,
        commit: &str,
    ) -> Result<(), StoreError> {
        todo!()
    }

    /// Keeps which version of the image runs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_digest(&self, lease: LeaseKey<'_>, digest: &str) -> Result<(), StoreError> {
        todo!()
    }

    /// Keeps an artifact whose bytes are stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_artifact(
        &self,
        lease: LeaseKey<'_>,
        artifact: &NewArtifact,
    ) -> Result<ArtifactId, StoreError> {
        todo!()
    }

    /// Ends the attempt and its job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end(
        &self,
        lease: LeaseKey<'_>,
        status: JobStatus,
        reason: Option<&str>,
        tasks: &[(String, TaskStatus)],
    ) -> Result<Changed, StoreError> {
        todo!()
    }

    /// Gives a job back that has not begun.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn give_back(
        &self,
        lease: LeaseKey<'_>,
        reason: &str,
        counts: bool,
    ) -> Result<Changed, StoreError> {
        todo!()
    }

    /// Ends leases that ran out (only when told that renewals could be received for a whole lease), and what is a minute past its deadline.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reap(&self, leases_too: bool) -> Result<Changed, StoreError> {
        todo!()
    }

    /// Cancels jobs that no worker could serve for so long.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cancel_unserved(&self) -> Result<Changed, StoreError> {
        todo!()
    }

    /// Every image that a worker ever offered, by name and architecture, and whether one that is here offers it now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn images(&self) -> Result<Vec<KnownImage>, StoreError> {
        todo!()
    }

    /// How many jobs there are of each status, and sessions.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        todo!()
    }
}
