//! The client against small servers, one for each way to reach one.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod client;
mod proxy;
mod server;
