//! Users, their tokens, and workers' registrations.

#![allow(unused, clippy::todo, missing_docs)]
use kiln_core::{
    farm::*,
    job::{JobStatus, TaskStatus},
};

use crate::{Store, StoreError, model::*};

impl Store {
    /// Makes a user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_user(
        &self,
        username: &str,
        email: &str,
        admin: bool,
    ) -> Result<User, StoreError> {
        todo!()
    }

    /// A user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        todo!()
    }

    /// A user by its name, without `~`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user_by_name(&self, username: &str) -> Result<Option<User>, StoreError> {
        todo!()
    }

    /// All users, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn users(&self) -> Result<Vec<User>, StoreError> {
        todo!()
    }

    /// Refuses all tokens of a user from now on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_user(&self, username: &str) -> Result<bool, StoreError> {
        todo!()
    }

    /// Makes a token.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_token(
        &self,
        user: UserId,
        hash: TokenHash,
        grants: &Grants,
        days: Option<u32>,
    ) -> Result<Token, StoreError> {
        todo!()
    }

    /// All tokens of a user, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tokens(&self, user: UserId) -> Result<Vec<Token>, StoreError> {
        todo!()
    }

    /// Takes a token back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_token(&self, id: TokenId) -> Result<bool, StoreError> {
        todo!()
    }

    /// Whose token that is and what it may do; none when it has ended or was taken back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn token(&self, hash: TokenHash) -> Result<Option<(User, Grants)>, StoreError> {
        todo!()
    }

    /// Makes a worker's registration.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_worker(&self, name: &str, hash: TokenHash) -> Result<Worker, StoreError> {
        todo!()
    }

    /// All registrations, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn workers(&self) -> Result<Vec<Worker>, StoreError> {
        todo!()
    }

    /// Takes a worker's token back. Its leases run out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_worker(&self, name: &str) -> Result<bool, StoreError> {
        todo!()
    }

    /// Gives a worker's sessions no jobs, or again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn pause_worker(&self, name: &str, why: Option<&str>) -> Result<bool, StoreError> {
        todo!()
    }

    /// Whose worker token that is; none when it was taken back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn worker(&self, hash: TokenHash) -> Result<Option<Worker>, StoreError> {
        todo!()
    }

    /// The job of a lease that has not ended, by the token in its guest.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job_token(&self, hash: TokenHash) -> Result<Option<JobId>, StoreError> {
        todo!()
    }
}
