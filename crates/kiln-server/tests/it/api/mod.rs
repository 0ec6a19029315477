//! The API that people and their programs speak.

mod artifacts;
mod harness;
mod idempotency;
mod limits;
mod logs;
mod malformed;
mod operations;
mod pages;
mod permission;
mod schema;
