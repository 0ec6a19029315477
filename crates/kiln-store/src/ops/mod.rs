//! The operations, a file for each kind.

mod jobs;
mod leases;
mod users;
