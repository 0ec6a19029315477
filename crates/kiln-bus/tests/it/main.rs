//! Buses, as the servers of a farm use them.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod outages;
mod suite;
