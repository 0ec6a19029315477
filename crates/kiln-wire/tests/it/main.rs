//! The client against small servers, one for each way to reach one.

mod client;
mod proxy;
mod server;
