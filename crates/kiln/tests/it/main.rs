//! kiln from its command line to its guests, as a user sees it.
//!
//! These tests boot real guests; `make test` makes their image first.

mod harness;
mod servers;

mod artifacts;
mod check;
mod doctor;
mod environment;
mod examples;
mod failures;
mod here;
mod hold;
mod images;
mod logins;
mod network;
mod packages;
mod private_sources;
mod secrets;
mod sources;
