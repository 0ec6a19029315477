//! What goes between the farm's processes: the worker's messages, and the HTTP
//! client by which workers and people's commands reach a server.
//!
//! A worker keeps one WebSocket ([`message`]) and sends what is bulky, and what
//! must be acknowledged, beside it as plain HTTP ([`report`]).

pub mod client;
pub mod live;
pub mod message;
pub mod report;
#[cfg(feature = "testing")]
pub mod testing;
