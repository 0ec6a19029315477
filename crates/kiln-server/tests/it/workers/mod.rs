//! What workers see of a server.

mod artifacts;
mod engines;
pub(crate) mod harness;
mod life;
pub(crate) mod live;
mod logs;
mod reports;
mod sockets;
mod who;
