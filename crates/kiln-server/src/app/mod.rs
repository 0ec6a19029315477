//! The use cases. Permission is asked here, in one place ([`permission`]).
//!
//! Each takes what all requests share and who asks, and gives what the store
//! has, or an [`Error`] that HTTP and GraphQL know how to tell.

pub(crate) mod actor;
pub(crate) mod artifacts;
pub(crate) mod board;
mod error;
pub(crate) mod groups;
pub(crate) mod health;
pub(crate) mod holders;
mod input;
pub(crate) mod jobs;
pub(crate) mod leases;
pub(crate) mod logs;
pub(crate) mod narrate;
pub(crate) mod permission;
pub(crate) mod renewals;
pub(crate) mod sessions;
pub(crate) mod submit;
pub(crate) mod time;
pub(crate) mod users;
pub(crate) mod waiting;
pub(crate) mod workers;

pub(crate) use actor::Actor;
pub(crate) use error::{Error, failed};
pub(crate) use kiln_store::token;

/// What a use case gives.
pub(crate) type Result<T> = std::result::Result<T, Error>;
