//! Connections and the life of a server.
#![allow(unused, clippy::todo, missing_docs)]

use std::sync::Arc;

use kiln_store::Store;
use tokio::{
    io::DuplexStream,
    net::{TcpListener, UnixListener},
    sync::mpsc,
};

use crate::Config;

/// Where connections come from.
pub enum Listener {
    /// Plain TCP.
    Tcp(TcpListener),
    /// TLS.
    Tls(TcpListener, Arc<tokio_rustls::rustls::ServerConfig>),
    /// A socket of this host.
    Unix(UnixListener),
    /// This process: see `kiln_wire::client::Target::Memory`.
    Memory(mpsc::Receiver<DuplexStream>),
}

/// A server that runs.
pub struct Running {}

impl Running {
    /// Takes no more connections, lets requests in flight end (at most 10 s), and ends.
    pub async fn stop(self) {
        todo!()
    }
}

/// Starts a server on a store.
pub async fn start(
    config: Config,
    store: Store,
    listeners: Vec<Listener>,
) -> anyhow::Result<Running> {
    todo!()
}
