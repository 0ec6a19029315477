//! A server, as those who talk to it see it.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod api;
mod servers;
mod workers;
