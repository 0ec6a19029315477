//! The HTTP client of workers and of people's commands: to a URL, through a
//! proxy, over a socket of this host, or within this process.
//!
//! A request's URI is a path; the [`Target`] says which server, and the token of
//! the [`Options`] goes along. Connecting has a limit of its own, 10 seconds;
//! how long an answer may take is the caller's to say, and how much of it to take
//! ([`read`]).

mod address;
mod connect;
mod proxy;
mod socket;
mod tls;

use std::{error::Error, fmt, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Full, Limited, combinators::BoxBody};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};

use self::connect::{ConnectError, Connector, Route};
pub use self::socket::Socket;
use crate::{
    message::{CONNECT_PATH, MAX_MESSAGE},
    report::Refusal,
};

/// How long it may take until a server has answered that it speaks WebSocket, connecting
/// included. Who waits longer at one that hangs loses leases by it.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The longest text of an error that is read.
const ERROR: usize = 64 << 10;

/// Where a server is.
#[derive(Debug, Clone)]
pub enum Target {
    /// `https://…`, or `http://…` to loopback (elsewhere only when told `insecure`).
    /// A path in it stands before each request's.
    Url(String),
    /// A socket of this host: `unix:/path`.
    Unix(PathBuf),
    /// This process: who receives these streams serves them.
    Memory(mpsc::Sender<DuplexStream>),
}

/// How to reach it.
#[derive(Clone, Default)]
pub struct Options {
    /// `http://[user:password@]host:port` of a proxy, asked to CONNECT for https
    /// and for WebSockets; what `HTTPS_PROXY` and the like say is the binary's to
    /// read. It is used for a [`Target::Url`] only, wherever that points.
    pub proxy: Option<String>,
    /// Allow plain http to other hosts.
    pub insecure: bool,
    /// A file with further certificates to trust (PEM).
    pub ca: Option<PathBuf>,
    /// Sent as `Authorization: Bearer …` with requests that have none.
    pub token: Option<String>,
}

/// Without the token, and without the proxy's password.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("proxy", &self.proxy.is_some())
            .field("insecure", &self.insecure)
            .field("ca", &self.ca)
            .field("token", &self.token.is_some())
            .finish()
    }
}

/// A body that is sent.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// An answer, whose body comes in.
pub type Answer = Response<Incoming>;

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The words are wrong: a URL, a file, a token. Not to be tried again.
    #[error("{0}")]
    Wrong(String),
    /// It can't be reached, or went away.
    #[error("{0}")]
    Unreachable(String),
}

/// A client. Cheap to clone; connections are kept and shared.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    route: Arc<Route>,
    base: String,
    authorization: Option<HeaderValue>,
    proxy_authorization: Option<HeaderValue>,
    requests: legacy::Client<Connector, Body>,
    upgrades: legacy::Client<Connector, Body>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.0.route.name())
    }
}

impl Client {
    /// A client of this server. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ClientError::Wrong`] for words that can't be meant: a URL, a proxy, a
    /// file with certificates, a token with characters that no header may have.
    pub fn new(target: &Target, options: &Options) -> Result<Self, ClientError> {
        let route = Arc::new(Route::new(target, options)?);
        let authorization = match &options.token {
            Some(token) => Some(secret(&format!("Bearer {token}")).ok_or_else(|| {
                ClientError::Wrong("the token has characters that no token has".to_owned())
            })?),
            None => None,
        };
        let pool = || {
            let mut builder = legacy::Client::builder(TokioExecutor::new());
            builder
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(Duration::from_secs(30));
            builder
        };
        Ok(Self(Arc::new(Inner {
            base: route.base(),
            authorization,
            proxy_authorization: route.proxy_credentials().and_then(secret),
            requests: pool().build(Connector::new(Arc::clone(&route), false)),
            upgrades: pool()
                .pool_max_idle_per_host(0)
                .build(Connector::new(Arc::clone(&route), true)),
            route,
        })))
    }

    /// The server's name, for people.
    #[must_use]
    pub fn server(&self) -> String {
        self.0.route.name()
    }

    /// Sends a request whose URI is a path; the client knows the server. A
    /// request that was never sent because a kept connection had ended is sent
    /// again by itself.
    ///
    /// # Errors
    /// [`ClientError`]; an answer of any status is none.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, ClientError> {
        let mut request = self.addressed(request)?;
        if let Some(credentials) = &self.0.proxy_authorization {
            let headers = request.headers_mut();
            headers.insert(header::PROXY_AUTHORIZATION, credentials.clone());
        }
        let answer = self.0.requests.request(request).await;
        answer.map_err(|error| self.unreachable(&error))
    }

    /// Opens the WebSocket of a worker.
    ///
    /// # Errors
    /// As [`Self::websocket`].
    pub async fn connect(&self) -> Result<Socket, ClientError> {
        self.websocket(CONNECT_PATH).await.map(Socket)
    }

    /// Opens a WebSocket, whose messages have [`MAX_MESSAGE`] bytes at most. A
    /// refusal by HTTP is `Wrong` for 4xx, with its text.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn websocket(
        &self,
        path: &str,
    ) -> Result<WebSocketStream<TokioIo<Upgraded>>, ClientError> {
        let opened = tokio::time::timeout(HANDSHAKE, self.opened(path)).await;
        let upgraded = opened.unwrap_or_else(|_| {
            Err(ClientError::Unreachable(format!(
                "{} doesn't answer",
                self.server()
            )))
        })?;
        let limits = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let io = TokioIo::new(upgraded);
        Ok(WebSocketStream::from_raw_socket(io, Role::Client, Some(limits)).await)
    }

    async fn opened(&self, path: &str) -> Result<Upgraded, ClientError> {
        let key = generate_key();
        let request = Request::get(path)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &key)
            .body(empty())
            .map_err(|error| ClientError::Wrong(format!("`{path}` is no path: {error}")))?;
        let request = self.addressed(request)?;
        let answer = self.0.upgrades.request(request).await;
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.refused(answer).await);
        }
        let accepted = answer.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        let expected = derive_accept_key(key.as_bytes());
        if accepted.is_none_or(|accepted| accepted.as_bytes() != expected.as_bytes()) {
            let server = self.server();
            let why = format!("{server} switches to something that is no WebSocket");
            return Err(ClientError::Wrong(why));
        }
        let upgraded = hyper::upgrade::on(answer).await;
        upgraded.map_err(|error| self.unreachable(&error))
    }

    /// What a server that opens no WebSocket says instead.
    async fn refused(&self, answer: Response<Incoming>) -> ClientError {
        let status = answer.status();
        let elsewhere = answer.headers().get(header::LOCATION).cloned();
        let text = read(answer.into_body(), ERROR).await.unwrap_or_default();
        let text = match serde_json::from_slice::<Refusal>(&text) {
            Ok(refusal) => refusal.message,
            Err(_) => status.canonical_reason().unwrap_or_default().to_owned(),
        };
        let server = self.server();
        let says = format!("{server} says {}: {text}", status.as_u16());
        match elsewhere {
            Some(place) if status.is_redirection() => ClientError::Wrong(format!(
                "{server} is at {} now: use that address",
                String::from_utf8_lossy(place.as_bytes())
            )),
            _ if status.is_server_error() => ClientError::Unreachable(says),
            _ => ClientError::Wrong(says),
        }
    }

    /// Completes a request whose URI is a path.
    fn addressed(&self, mut request: Request<Body>) -> Result<Request<Body>, ClientError> {
        let path = request.uri().path_and_query();
        let path = path.map_or("/", http::uri::PathAndQuery::as_str);
        let uri: Result<Uri, _> = format!("{}{path}", self.0.base).parse();
        *request.uri_mut() =
            uri.map_err(|error| ClientError::Wrong(format!("`{path}` is no path: {error}")))?;
        let headers = request.headers_mut();
        if let Some(token) = &self.0.authorization {
            let entry = headers.entry(header::AUTHORIZATION);
            entry.or_insert_with(|| token.clone());
        }
        headers
            .entry(header::USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!(
                "kiln/",
                env!("CARGO_PKG_VERSION")
            )));
        Ok(request)
    }

    fn unreachable(&self, error: &(dyn Error + 'static)) -> ClientError {
        let why = match find::<ConnectError>(error) {
            Some(error) => format!("can't be reached: {error}"),
            None => format!("went away: {}", innermost(error)),
        };
        ClientError::Unreachable(format!("{} {why}", self.server()))
    }
}

/// A header's value that is never shown.
fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The first error of this type among those behind an error.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// What is behind all of an error: the one with the reason.
fn innermost(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}

/// An empty body.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A body of these bytes.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// [`ClientError::Wrong`] when it is longer, [`ClientError::Unreachable`] when
/// the connection ends before it does.
pub async fn read(body: Incoming, limit: usize) -> Result<Bytes, ClientError> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(ClientError::Wrong(
            format!("the answer is longer than {limit} bytes"),
        )),
        Err(error) => Err(ClientError::Unreachable(format!(
            "the answer broke off: {}",
            innermost(error.as_ref())
        ))),
    }
}
