//! Connections to a server, whichever way it is reached.

use std::{
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector},
    rt::TokioIo,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::{TcpStream, UnixStream},
    sync::mpsc,
};
use tower::Service;

use super::{
    ClientError, Options, Target,
    address::{Address, Proxy},
    proxy, tls,
};

/// How long a connection may take, through a proxy and with TLS.
const CONNECT: Duration = Duration::from_secs(10);
/// A peer that has gone without a word is noticed after about half a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What a connection within this process holds in each direction, in bytes.
const MEMORY: usize = 128 << 10;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("{0}")]
    Tcp(String),
    #[error("there was no answer for {} s", CONNECT.as_secs())]
    Slow,
    #[error("the proxy {proxy} is of no help: {why}")]
    Proxy { proxy: String, why: String },
    #[error("{0}; if its certificate is signed by a CA of your own, give that by --ca")]
    Tls(std::io::Error),
    #[error("{0}; is the server running?")]
    Unix(std::io::Error),
    #[error("the server in this process has ended")]
    Memory,
}

/// The way to a server.
pub(super) enum Route {
    Tcp {
        address: Address,
        proxy: Option<Proxy>,
        tls: Option<tokio_rustls::TlsConnector>,
    },
    Unix(PathBuf),
    Memory(mpsc::Sender<DuplexStream>),
}

impl Route {
    pub fn new(target: &Target, options: &Options) -> Result<Self, ClientError> {
        let url = match target {
            Target::Url(url) => url,
            Target::Unix(path) => return Ok(Self::Unix(path.clone())),
            Target::Memory(server) => return Ok(Self::Memory(server.clone())),
        };
        let address = Address::server(url, options.insecure)?;
        let proxy = options.proxy.as_deref().map(Proxy::read).transpose()?;
        let tls = match address.https {
            true => Some(tls::config(options.ca.as_deref())?.into()),
            false => None,
        };
        Ok(Self::Tcp {
            address,
            proxy,
            tls,
        })
    }

    /// The server's name, for people.
    pub fn name(&self) -> String {
        match self {
            Self::Tcp { address, .. } => {
                let scheme = if address.https { "https" } else { "http" };
                format!("{scheme}://{}{}", address.authority, address.prefix)
            }
            Self::Unix(path) => format!("unix:{}", path.display()),
            Self::Memory(_) => "the server in this process".to_owned(),
        }
    }

    /// What stands before each path.
    pub fn base(&self) -> String {
        match self {
            Self::Tcp { .. } => self.name(),
            Self::Unix(_) | Self::Memory(_) => "http://localhost".to_owned(),
        }
    }

    /// What a proxy wants to know with each request that it reads.
    pub fn proxy_credentials(&self) -> Option<&str> {
        match self {
            Self::Tcp {
                proxy: Some(proxy),
                tls: None,
                ..
            } => proxy.credentials.as_deref(),
            _ => None,
        }
    }
}

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    route: Arc<Route>,
    tcp: HttpConnector,
    /// Whether a proxy is asked for a tunnel even where it could read along:
    /// it would understand no WebSocket.
    tunnel: bool,
}

impl Connector {
    pub fn new(route: Arc<Route>, tunnel: bool) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE / 3));
        tcp.set_keepalive_retries(Some(3));
        Self { route, tcp, tunnel }
    }

    async fn connect(mut self) -> Result<Stream, ConnectError> {
        match &*self.route {
            Route::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                Ok(Stream::new(stream.map_err(ConnectError::Unix)?))
            }
            Route::Memory(server) => {
                let (ours, theirs) = tokio::io::duplex(MEMORY);
                let sent = server.send(theirs).await;
                sent.map_err(|_| ConnectError::Memory)?;
                Ok(Stream::new(ours))
            }
            Route::Tcp {
                address,
                proxy,
                tls,
            } => {
                let via = match proxy {
                    Some(proxy) => proxy.tcp(),
                    None => address.tcp(),
                };
                let via = via.map_err(|error| ConnectError::Tcp(error.to_string()))?;
                let mut tcp = tcp(&mut self.tcp, via).await.map_err(|why| match proxy {
                    Some(proxy) => ConnectError::Proxy {
                        proxy: proxy.name(),
                        why,
                    },
                    None => ConnectError::Tcp(why),
                })?;
                let tunnel = self.tunnel || tls.is_some();
                if let Some(proxy) = proxy.as_ref().filter(|_| tunnel) {
                    proxy::tunnel(&mut tcp, proxy, address).await?;
                }
                match tls {
                    Some(connector) => secured(connector, address, tcp).await,
                    None => Ok(Stream {
                        read_along: proxy.is_some() && !tunnel,
                        ..Stream::new(tcp)
                    }),
                }
            }
        }
    }
}

async fn tcp(connector: &mut HttpConnector, to: Uri) -> Result<TcpStream, String> {
    match connector.call(to).await {
        Ok(stream) => Ok(stream.into_inner()),
        Err(error) => Err(super::innermost(&error)),
    }
}

async fn secured(
    connector: &tokio_rustls::TlsConnector,
    address: &Address,
    tcp: TcpStream,
) -> Result<Stream, ConnectError> {
    let name = rustls_pki_types::ServerName::try_from(address.host.clone())
        .map_err(|error| ConnectError::Tcp(error.to_string()))?;
    let stream = connector.connect(name, tcp).await;
    Ok(Stream::new(stream.map_err(ConnectError::Tls)?))
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    // Where to is in the route: the URI has the same words, without the way.
    fn call(&mut self, _: Uri) -> Self::Future {
        let connected = tokio::time::timeout(CONNECT, self.clone().connect());
        Box::pin(async { connected.await.unwrap_or(Err(ConnectError::Slow)) })
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection.
pub(super) struct Stream {
    io: TokioIo<Box<dyn Io>>,
    /// A proxy reads the requests, and wants whole URIs in them.
    read_along: bool,
}

impl Stream {
    fn new(io: impl Io + 'static) -> Self {
        Self {
            io: TokioIo::new(Box::new(io)),
            read_along: false,
        }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.read_along)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
