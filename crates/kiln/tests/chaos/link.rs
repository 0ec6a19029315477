//! What is between two parts of the farm: a connection that can be slow, silent or cut.
//!
//! Whoever listens here may lead to several servers: then this is the proxy before them,
//! which asks each whether it is ready and gives every new connection to the next one that is;
//! where none is, it says so itself, as HAProxy does.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use kiln_core::testing::random::Random;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    time::{sleep, timeout},
};

use super::tap::{self, Direction, Tap, Tapped};

/// How often a server is asked whether it is ready, and how long it may take to say so.
const ASK: Duration = Duration::from_secs(2);

/// A status, a type and a text.
type Told = (&'static str, &'static str, &'static str);

/// What an object store says that has too much to do, or is broken.
const ERRORS: [Told; 2] = [
    (
        "503 Slow Down",
        "application/xml",
        "<Error><Code>SlowDown</Code><Message>chaos</Message></Error>",
    ),
    (
        "500 Internal Server Error",
        "application/xml",
        "<Error><Code>InternalError</Code><Message>chaos</Message></Error>",
    ),
];

/// What a proxy says that knows no server which is ready.
const NOBODY: Told = (
    "503 Service Unavailable",
    "text/html",
    "<html><body><h1>503 Service Unavailable</h1>\nNo server is available to handle this request.\n</body></html>\n",
);

/// What is the matter between two parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Clear,
    /// All takes so much longer.
    Slow(Duration),
    /// Nothing comes through for now, and nobody is told.
    Hole,
    /// Connections break, and none is made.
    Cut,
    /// Connections break, and then each request is one: all of them, or each other by a
    /// coin, are told by HTTP that they are not served.
    Errors {
        all: bool,
    },
    /// What is published on a bus goes where nobody listens; all else is as ever.
    Deaf,
}

impl Weather {
    /// Whether connections break when this begins.
    fn breaks(self) -> bool {
        matches!(self, Self::Cut | Self::Errors { .. })
    }
}

/// Where connections go.
#[derive(Clone)]
pub enum To {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// One way through a [`Link`].
#[derive(Clone)]
pub struct Way {
    to: To,
    weather: Arc<watch::Sender<Weather>>,
    /// Whether the server said that it is ready when it was asked last.
    ready: Arc<AtomicBool>,
}

impl Way {
    pub fn new(to: To, ready: Arc<AtomicBool>) -> Self {
        Self {
            to,
            weather: Arc::new(watch::Sender::new(Weather::Clear)),
            ready,
        }
    }

    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

/// Listens for one part, and leads to another.
pub struct Link {
    pub address: SocketAddr,
    pub ways: Vec<Way>,
}

impl Link {
    /// With one way.
    pub async fn to(to: To) -> Self {
        Self::over(vec![Way::new(to, Arc::new(AtomicBool::new(true)))], None).await
    }

    /// With several, of which any will do.
    pub async fn over(ways: Vec<Way>, tap: Option<Tap>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(listen(listener, ways.clone(), tap));
        Self { address, ways }
    }
}

async fn listen(listener: TcpListener, ways: Vec<Way>, tap: Option<Tap>) {
    let turn = AtomicUsize::new(0);
    loop {
        let Ok((incoming, _)) = listener.accept().await else {
            continue;
        };
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let ways = ways.clone();
        let tap = tap.as_ref().map(Tap::connection);
        tokio::spawn(async move {
            let ready = |way: &&Way| way.ready.load(Ordering::Relaxed);
            let mut usable: Vec<&Way> = ways.iter().filter(ready).collect();
            if usable.is_empty() {
                let _ = timeout(ASK, refuse(&incoming, NOBODY)).await;
                return;
            }
            let first = turn % usable.len();
            usable.rotate_left(first);
            for way in usable {
                if through(&incoming, way, turn, tap.as_ref()).await {
                    return;
                }
            }
        });
    }
}

/// Whether there was a way for this connection, whose number that is; it is over then.
async fn through(
    incoming: &TcpStream,
    way: &Way,
    number: usize,
    tap: Option<&Arc<Tapped>>,
) -> bool {
    let weather = *way.weather.borrow();
    let mut begun = io::Cursor::new(Vec::new());
    match weather {
        Weather::Cut => return false,
        Weather::Errors { all } => {
            let mut coin = Random::new(number as u64);
            if all || coin.one_in(2) {
                let error = *coin.one_of(&ERRORS);
                let _ = timeout(ASK, refuse(incoming, error)).await;
                return true;
            }
            let Ok(Ok(request)) = timeout(ASK, request(incoming)).await else {
                return true;
            };
            begun = io::Cursor::new(last(request));
        }
        _ => {}
    }
    // Small messages are sent at once, as without a proxy.
    let _ = incoming.set_nodelay(true);
    let here_in = begun.chain(Half(incoming));
    let here_out = Half(incoming);
    match &way.to {
        To::Tcp(address) => {
            let Ok(Ok(there)) = timeout(ASK, TcpStream::connect(address)).await else {
                return false;
            };
            let _ = there.set_nodelay(true);
            let (there_in, there_out) = there.into_split();
            both(way, tap, (here_in, there_out), (there_in, here_out)).await;
        }
        To::Unix(path) => {
            let Ok(Ok(there)) = timeout(ASK, UnixStream::connect(path)).await else {
                return false;
            };
            let (there_in, there_out) = there.into_split();
            both(way, tap, (here_in, there_out), (there_in, here_out)).await;
        }
    }
    true
}

/// One direction of the stream that came in: it is used for both without being taken.
struct Half<'a>(&'a TcpStream);

impl AsyncRead for Half<'_> {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        loop {
            std::task::ready!(self.0.poll_read_ready(context))?;
            match self.0.try_read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    return std::task::Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return std::task::Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Half<'_> {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        loop {
            std::task::ready!(self.0.poll_write_ready(context))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return std::task::Poll::Ready(written),
            }
        }
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        let shut = rustix::net::shutdown(self.0, rustix::net::Shutdown::Write);
        std::task::Poll::Ready(shut.map_err(Into::into))
    }
}

/// Passes bytes on in both directions until both have ended, or the link is cut.
async fn both(
    way: &Way,
    tap: Option<&Arc<Tapped>>,
    up: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    down: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
) {
    let mut weather = way.weather.subscribe();
    let cut =
        async { while weather.changed().await.is_ok() && !weather.borrow_and_update().breaks() {} };
    let asked = pass(up, way, tap, Direction::Up);
    let answered = pass(down, way, tap, Direction::Down);
    tokio::select! {
        () = cut => {}
        _ = async { tokio::join!(asked, answered) } => {}
    }
}

async fn pass(
    (mut from, mut to): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    way: &Way,
    tap: Option<&Arc<Tapped>>,
    direction: Direction,
) {
    let mut weather = way.weather.subscribe();
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = &mut buffer[..count];
        // Both are told as the server knows of them: what it said, and what reaches it.
        if let Some(tap) = tap.filter(|_| direction == Direction::Down) {
            tap.saw(direction, bytes);
        }
        let now = *weather.borrow_and_update();
        match now {
            Weather::Slow(by) => sleep(by).await,
            Weather::Hole => drop(weather.wait_for(|now| *now != Weather::Hole).await),
            Weather::Deaf if direction == Direction::Up => publish_elsewhere(bytes),
            Weather::Clear | Weather::Cut | Weather::Errors { .. } | Weather::Deaf => {}
        }
        if let Some(tap) = tap.filter(|_| direction == Direction::Up) {
            tap.saw(direction, bytes);
        }
        if to.write_all(bytes).await.is_err() {
            break;
        }
    }
    // What was half open would stay so for ever.
    let _ = to.shutdown().await;
}

/// Changes the channel of what is published by the Redis protocol, where that is whole.
fn publish_elsewhere(bytes: &mut [u8]) {
    const WORD: &[u8] = b"PUBLISH\r\n$";
    const CHANNEL: &[u8] = b"\r\nkiln.";
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|here| here == what);
    let mut at = 0;
    while let Some(word) = find(&bytes[at..], WORD) {
        at += word + WORD.len();
        // After the length of its name.
        let end = bytes.len().min(at + 16);
        if let Some(name) = find(&bytes[at..end], CHANNEL) {
            let name = at + name + 2;
            bytes[name..name + 4].copy_from_slice(b"deaf");
        }
    }
}

/// Reads a request: all of it, if its length is said.
async fn request(incoming: &TcpStream) -> io::Result<Vec<u8>> {
    let mut stream = Half(incoming);
    let mut bytes = Vec::new();
    let whole = loop {
        if let Some(head) = tap::head(&bytes, false).flatten() {
            break head.whole();
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    while bytes.len() < whole && stream.read_buf(&mut bytes).await? > 0 {}
    Ok(bytes)
}

/// The same request, after which the server ends the connection. No signature is of that.
fn last(mut request: Vec<u8>) -> Vec<u8> {
    let line = request.windows(2).position(|two| two == b"\r\n");
    let line = line.map_or(0, |at| at + 2);
    request.splice(line..line, *b"Connection: close\r\n");
    request
}

/// Answers a request. Who does not listen has a broken connection, which is as bad.
async fn refuse(incoming: &TcpStream, (status, kind, body): Told) -> io::Result<()> {
    request(incoming).await?;
    let mut stream = Half(incoming);
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).await?;
    stream.shutdown().await
}

/// Asks a server whether it is ready, as a proxy before it does.
pub async fn ask(address: SocketAddr, ready: Arc<AtomicBool>) {
    loop {
        let asked = timeout(ASK, is_ready(address)).await;
        ready.store(matches!(asked, Ok(Ok(true))), Ordering::Relaxed);
        sleep(ASK).await;
    }
}

async fn is_ready(address: SocketAddr) -> io::Result<bool> {
    let answer = get(address, "/readyz").await?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

/// What time it is for a server, if it says so.
pub async fn date(address: SocketAddr) -> Option<Timestamp> {
    let answer = timeout(ASK, get(address, "/healthz")).await.ok()?.ok()?;
    let mut lines = answer.lines();
    let date = lines.find_map(|line| line.strip_prefix("date: "))?;
    let date = jiff::fmt::rfc2822::parse(date).ok()?;
    Some(date.timestamp())
}

async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let words = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(words.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
