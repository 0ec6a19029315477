//! What a guest may reach, and the way there.
//!
//! ```text
//!  guest ─ virtio ─► QEMU's user network ─► rules of the namespace ─► uplink
//!  10.0.2.15         10.0.2.2, 10.0.2.3     [`filter`]                [`uplink`]
//! ```
//!
//! The rules are loaded before anything runs in the namespace, and nothing in
//! there has a capability to change them. They close the networks that
//! [`routes`] finds around this host and bound how many flows a guest has. A
//! loopback address of the host that the operator opened is carried by
//! [`forward`]: the guest finds it at 10.0.2.2, where besides only its [`Farm`]
//! listens.

mod check;
mod farm;
pub mod filter;
pub(crate) mod forward;
pub(crate) mod keeper;
mod routes;
mod rtnetlink;
mod uplink;

use std::net::IpAddr;

pub use check::{CheckError, check};
pub(crate) use farm::name;
pub use farm::{FARM_PORT, Farm};

/// What a guest may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// Nothing at all.
    None,
    /// The public internet, DNS, and these.
    Public {
        /// Addresses outside the public internet that were opened by hand.
        allow: Vec<Allowed>,
    },
}

/// An opened address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// The address as the host knows it. A loopback address is the host's own
    /// and the guest finds it at 10.0.2.2.
    pub address: IpAddr,
    /// One TCP port, or all of the address when absent. A loopback address
    /// needs one.
    pub port: Option<u16>,
}

impl Network {
    /// The opened addresses.
    #[must_use]
    pub fn allowed(&self) -> &[Allowed] {
        match self {
            Self::None => &[],
            Self::Public { allow } => allow,
        }
    }
}
