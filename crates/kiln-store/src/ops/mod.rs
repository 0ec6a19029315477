//! The operations, a file for each kind.

mod assign;
mod chunks;
mod garbage;
mod groups;
mod jobs;
mod keep;
mod moves;
mod reap;
mod reports;
mod sessions;
mod submit;
mod users;
mod waiting;
mod workers;

#[cfg(feature = "testing")]
pub(crate) use assign::HEADS;
