//! Guests of kiln: images, QEMU, the namespaces and the network around it, and
//! the SSH session into the guest.
pub mod cgroup;
#[cfg(feature = "testing")]
pub mod dummy;
pub mod image;
pub mod machine;
pub mod namespace;
pub mod network;
pub mod qemu;
mod socket;
pub mod ssh;
mod tail;
