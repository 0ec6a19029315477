//! What tests of a whole farm share: what happened in one, and whether that was right.
//!
//! Whoever runs a farm under faults, a real one of processes or one of state machines
//! under a simulated clock, writes a [`history`]; the [`checker`] judges it.

pub mod checker;
pub mod history;
pub mod random;
pub mod sim;
