//! The words and rules of kiln: manifests, states, and the texts a guest is given.
//!
//! This crate is row 0 of the workspace. It does no I/O and knows no clock and no source of
//! randomness: what depends on those takes them as arguments. Everything here is synchronous
//! and can be tested without a machine.

pub mod arch;
pub mod base64;
pub mod farm;
pub mod guest_files;
pub mod image_config;
pub mod job;
pub mod manifest;
pub mod suggest;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
