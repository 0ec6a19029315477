//! What workers see of a server.

mod artifacts;
mod harness;
mod life;
mod logs;
mod reports;
mod sockets;
mod who;
