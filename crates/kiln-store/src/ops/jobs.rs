//! Jobs as their owners see them.

#![allow(unused, clippy::todo, missing_docs)]
use kiln_core::{
    farm::*,
    job::{JobStatus, TaskStatus},
};

use crate::{Store, StoreError, model::*};

impl Store {
    /// Writes job, tasks and the outbox event; or finds the job that the same key made. The flag says whether it is new.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn submit(&self, job: &NewJob) -> Result<(Job, bool), StoreError> {
        todo!()
    }

    /// A job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        todo!()
    }

    /// The tasks of these jobs, by job and place.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tasks(&self, jobs: &[JobId]) -> Result<Vec<Task>, StoreError> {
        todo!()
    }

    /// A task.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn task(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        todo!()
    }

    /// The artifacts of these jobs, by job and place.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn artifacts(&self, jobs: &[JobId]) -> Result<Vec<Artifact>, StoreError> {
        todo!()
    }

    /// An artifact.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn artifact(&self, id: ArtifactId) -> Result<Option<Artifact>, StoreError> {
        todo!()
    }

    /// The sources of a job as they were cloned last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sources(&self, job: JobId) -> Result<Vec<Source>, StoreError> {
        todo!()
    }

    /// The attempts at a job, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn attempts(&self, job: JobId) -> Result<Vec<Attempt>, StoreError> {
        todo!()
    }

    /// Jobs of a user, newest first, older than `before`; only those that are public when `public_only`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn jobs_of(
        &self,
        owner: UserId,
        before: Option<JobId>,
        limit: u32,
        public_only: bool,
    ) -> Result<JobPage, StoreError> {
        todo!()
    }

    /// Queues a pending job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn start(&self, job: JobId) -> Result<Changed, StoreError> {
        todo!()
    }

    /// Cancels a job that has not ended, with this reason.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cancel(&self, job: JobId, reason: &str) -> Result<Changed, StoreError> {
        todo!()
    }

    /// Changes who sees a job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_visibility(
        &self,
        job: JobId,
        visibility: Visibility,
    ) -> Result<Job, StoreError> {
        todo!()
    }

    /// Makes a group of pending jobs of one owner that are in none, and queues them when told to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_group(
        &self,
        owner: UserId,
        jobs: &[JobId],
        note: Option<&str>,
        triggers: &[Trigger],
        execute: bool,
    ) -> Result<(Group, Changed), StoreError> {
        todo!()
    }

    /// A group.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn group(&self, id: GroupId) -> Result<Option<Group>, StoreError> {
        todo!()
    }

    /// The jobs of a group, by number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn group_jobs(&self, id: GroupId) -> Result<Vec<Job>, StoreError> {
        todo!()
    }

    /// Queues the pending jobs of a group.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn start_group(&self, id: GroupId) -> Result<Changed, StoreError> {
        todo!()
    }

    /// Queued jobs and why they wait, in the order of their numbers; those of one user if named.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn waiting(
        &self,
        owner: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<Waiting>, StoreError> {
        todo!()
    }

    /// Why a queued job waits; none when it is not queued.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn wait_reason(&self, job: JobId) -> Result<Option<WaitReason>, StoreError> {
        todo!()
    }
}
