//! Guests of kiln: images, QEMU, the namespaces and the network around it, and
//! the ways into the guest.
pub mod agent;
pub mod cgroup;
#[cfg(feature = "testing")]
pub mod dummy;
#[cfg(feature = "testing")]
pub mod fuzzing;
pub mod image;
pub mod machine;
pub mod namespace;
pub mod network;
mod put;
pub mod qemu;
pub mod session;
mod socket;
pub mod ssh;
mod tail;
