//! Jobs from their manifest to their end, on the dummy machine.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod artifacts;
mod endings;
mod farm;
mod harness;
mod logs;
mod order;
mod preparation;
mod properties;
mod secrets;
mod sources;
