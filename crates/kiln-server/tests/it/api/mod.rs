//! The API that people and their programs speak.

mod harness;
mod schema;
