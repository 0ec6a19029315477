//! The HTTP client of workers and of people's commands: to a URL, through a
//! proxy, over a socket of this host, or within this process.
#![allow(unused, clippy::todo, missing_docs)]

use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use tokio::{io::DuplexStream, sync::mpsc};

/// Where a server is.
#[derive(Debug, Clone)]
pub enum Target {
    /// `https://…`, or `http://…` to loopback (elsewhere only when told `insecure`).
    Url(String),
    /// A socket of this host: `unix:/path`.
    Unix(PathBuf),
    /// This process.
    Memory(mpsc::Sender<DuplexStream>),
}

/// How to reach it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `http://host:port` of a proxy, asked to CONNECT for https and for
    /// WebSockets; what `HTTPS_PROXY` and the like say is the binary's to read.
    pub proxy: Option<String>,
    /// Allow plain http to other hosts.
    pub insecure: bool,
    /// A file with further certificates to trust (PEM).
    pub ca: Option<PathBuf>,
    /// Sent as `Authorization: Bearer …`.
    pub token: Option<String>,
}

/// A body that is sent.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The words are wrong: a URL, a file. Not to be tried again.
    #[error("{0}")]
    Wrong(String),
    /// It can't be reached, or went away.
    #[error("{0}")]
    Unreachable(String),
}

/// A client. Cheap to clone; connections are kept and shared.
#[derive(Clone)]
pub struct Client {}

impl Client {
    pub fn new(target: &Target, options: &Options) -> Result<Self, ClientError> {
        todo!()
    }
    /// Sends a request whose URI is a path; the client knows the server.
    pub async fn send(
        &self,
        request: http::Request<Body>,
    ) -> Result<http::Response<hyper::body::Incoming>, ClientError> {
        todo!()
    }
    /// Opens a WebSocket. A refusal by HTTP is `Wrong` for 4xx, with its text.
    pub async fn websocket(
        &self,
        path: &str,
    ) -> Result<
        tokio_tungstenite::WebSocketStream<hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>>,
        ClientError,
    > {
        todo!()
    }
}

/// An empty body.
pub fn empty() -> Body {
    todo!()
}
/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    todo!()
}
