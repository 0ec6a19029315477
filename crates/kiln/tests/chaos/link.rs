//! What is between two parts of the farm: a connection that can be slow, silent or cut.
//!
//! Whoever listens here may lead to several servers: then this is the proxy before them,
//! which asks each whether it is ready and gives every new connection to the next one that is.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    time::{sleep, timeout},
};

use super::tap::{self, Direction, Tap, Tapped};

/// How often a server is asked whether it is ready, and how long it may take to say so.
const ASK: Duration = Duration::from_secs(2);

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
    /// Connections break; each other new one is told by HTTP that it is not served.
    Errors,
}

impl Weather {
    /// Whether connections break when this begins.
    fn breaks(self) -> bool {
        matches!(self, Self::Cut | Self::Errors)
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
            // Where none is, all are tried.
            let mut usable: Vec<&Way> = ways.iter().filter(ready).collect();
            if usable.is_empty() {
                usable = ways.iter().collect();
            }
            let first = turn % usable.len();
            usable.rotate_left(first);
            for way in usable {
                if through(&incoming, way, turn, tap.as_ref()).await {
                    break;
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
    match weather {
        Weather::Cut => return false,
        Weather::Errors if number.is_multiple_of(2) => {
            // Who does not listen has a broken connection, which is as bad.
            let _ = timeout(ASK, refuse(incoming, number)).await;
            return true;
        }
        _ => {}
    }
    // Small messages are sent at once, as without a proxy.
    let _ = incoming.set_nodelay(true);
    let (here_in, here_out) = (Half(incoming), Half(incoming));
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
    ) -> std::task::Poll<std::io::Result<()>> {
        loop {
            std::task::ready!(self.0.poll_read_ready(context))?;
            match self.0.try_read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    return std::task::Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
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
    ) -> std::task::Poll<std::io::Result<usize>> {
        loop {
            std::task::ready!(self.0.poll_write_ready(context))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                written => return std::task::Poll::Ready(written),
            }
        }
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
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
    let asked = pass(up, way, tap.map(|tap| (tap, Direction::Up)));
    let answered = pass(down, way, tap.map(|tap| (tap, Direction::Down)));
    tokio::select! {
        () = cut => {}
        _ = async { tokio::join!(asked, answered) } => {}
    }
}

async fn pass(
    (mut from, mut to): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    way: &Way,
    tap: Option<(&Arc<Tapped>, Direction)>,
) {
    let mut weather = way.weather.subscribe();
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if let Some((tap, direction)) = tap {
            tap.saw(direction, &buffer[..count]);
        }
        let now = *weather.borrow_and_update();
        match now {
            Weather::Slow(by) => sleep(by).await,
            Weather::Hole => drop(weather.wait_for(|now| *now != Weather::Hole).await),
            Weather::Clear | Weather::Cut | Weather::Errors => {}
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    // What was half open would stay so for ever.
    let _ = to.shutdown().await;
}

/// Answers one request as an object store does that has too much to do, or is broken.
async fn refuse(incoming: &TcpStream, number: usize) -> std::io::Result<()> {
    let mut stream = Half(incoming);
    let mut bytes = Vec::new();
    let whole = loop {
        if let Some(head) = tap::head(&bytes, false).flatten() {
            break head.whole();
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    };
    while bytes.len() < whole && stream.read_buf(&mut bytes).await? > 0 {}
    let (status, code) = match number % 4 {
        0 => ("503 Slow Down", "SlowDown"),
        _ => ("500 Internal Server Error", "InternalError"),
    };
    let body = format!("<Error><Code>{code}</Code><Message>chaos</Message></Error>");
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes()).await?;
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

async fn is_ready(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let words = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(words.as_bytes()).await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    Ok(answer.ends_with(b"200"))
}
