//! What workers see of a server.

mod artifacts;
mod engines;
mod harness;
mod life;
mod logs;
mod reports;
mod sockets;
mod who;
