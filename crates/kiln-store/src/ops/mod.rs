//! The operations, a file for each kind.

mod assign;
mod bus;
mod chunks;
mod counts;
mod garbage;
mod groups;
mod jobs;
mod keep;
mod ledger;
mod moves;
mod pack;
mod reap;
mod referred;
mod renew;
pub(crate) mod reports;
mod restored;
mod sessions;
pub(crate) mod submit;
mod users;
mod waiting;
mod workers;

pub use restored::Restored;

#[cfg(feature = "testing")]
pub(crate) use assign::HEADS;
