//! What workers see of a server.

mod artifacts;
pub(crate) mod harness;
mod life;
mod live;
mod logs;
mod reports;
mod sockets;
mod who;
