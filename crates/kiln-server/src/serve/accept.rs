//! Taking connections and having HTTP/1 on them.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use http::{HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::{
    Listener,
    room::{Place, Room},
    slow::{Patient, Taken},
};
use crate::state::stopped;

/// How long a client may take for TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long it may take for a request's head, and have none on its way.
const HEAD: Duration = Duration::from_secs(30);
/// How long a head may be, in bytes.
const HEAD_BYTES: usize = 64 << 10;
/// How long to wait when the system has no more of something.
const BREATH: Duration = Duration::from_millis(100);

/// A connection of any kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Takes connections until the server ends, and until the last of them has ended. Those for which
/// there is no room wait in the kernel.
pub(super) async fn serve(
    mut listener: Listener,
    room: Room,
    app: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = room.take().await;
            (accept(&mut listener).await, place)
        };
        tokio::select! {
            () = stopped(&mut stopping) => break,
            Some(_) = connections.join_next() => {}
            (accepted, place) = next => match accepted {
                Ok(Some(accepted)) => {
                    let stopping = stopping.clone();
                    connections.spawn(connection(accepted, app.clone(), stopping, place));
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!("a connection can't be taken: {error}");
                    tokio::time::sleep(BREATH).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// What was accepted, before any words of a client.
enum Accepted {
    Plain(Box<dyn Stream>),
    Tls(Box<dyn Stream>, TlsAcceptor),
}

/// The next connection; none when there will be no more.
async fn accept(listener: &mut Listener) -> io::Result<Option<Accepted>> {
    Ok(Some(match listener {
        Listener::Tcp(listener) => Accepted::Plain(Box::new(tcp(listener).await?)),
        Listener::Tls(listener, config) => {
            let acceptor = TlsAcceptor::from(Arc::clone(config));
            Accepted::Tls(Box::new(tcp(listener).await?), acceptor)
        }
        Listener::Unix(listener) => Accepted::Plain(Box::new(listener.accept().await?.0)),
        Listener::Memory(streams) => match streams.recv().await {
            Some(stream) => Accepted::Plain(Box::new(stream)),
            None => return Ok(None),
        },
    }))
}

async fn tcp(listener: &tokio::net::TcpListener) -> io::Result<tokio::net::TcpStream> {
    let (stream, _) = listener.accept().await?;
    // A log's line is not kept back until more of it comes.
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connection(
    accepted: Accepted,
    app: Router,
    stopping: watch::Receiver<bool>,
    place: Place,
) {
    match accepted {
        Accepted::Plain(stream) => http(stream, app, stopping, &place).await,
        Accepted::Tls(stream, acceptor) => {
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => http(stream, app, stopping, &place).await,
                Ok(Err(error)) => tracing::debug!("TLS failed: {error}"),
                Err(_) => tracing::debug!("TLS took too long"),
            }
        }
    }
}

async fn http(
    stream: impl Stream + 'static,
    app: Router,
    mut stopping: watch::Receiver<bool>,
    place: &Place,
) {
    let used = &AtomicBool::new(false);
    let service = hyper::service::service_fn(|request: http::Request<Incoming>| {
        used.store(true, Ordering::Relaxed);
        let app = app.clone();
        async move {
            let request = request.map(|body| axum::body::Body::new(Patient::new(body)));
            let answer = app.oneshot(request).await;
            let mut answer = answer.unwrap_or_else(|never| match never {});
            if place.is_wanted() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                let headers = answer.headers_mut();
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_header_size(HEAD_BYTES)
        .half_close(false)
        .serve_connection(TokioIo::new(Taken::new(stream)), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = async {
            tokio::select! {
                () = stopped(&mut stopping) => {}
                () = place.wanted(|| used.load(Ordering::Relaxed)) => {}
            }
        } => {
            // After the request that is on its way, or at once.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use axum::{
        extract::{WebSocketUpgrade, ws::WebSocket},
        routing::get,
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
        sync::mpsc,
    };

    use super::*;

    /// Longer than anything here takes: what waits so long has failed.
    const LONG: Duration = Duration::from_secs(20);

    /// A server with room for so many connections. It ends with what is given here.
    fn serving(most: usize) -> (mpsc::Sender<DuplexStream>, watch::Sender<bool>) {
        let (streams, accepted) = mpsc::channel(1);
        let (stop, stopping) = watch::channel(false);
        let upgrade = async |upgrade: WebSocketUpgrade| {
            upgrade.on_upgrade(async |mut socket: WebSocket| {
                let said = socket.recv().await.unwrap().unwrap();
                socket.send(said).await.unwrap();
            })
        };
        let app = Router::new()
            .route("/", get(async || "well"))
            .route("/socket", get(upgrade));
        let listener = Listener::Memory(accepted);
        tokio::spawn(serve(listener, Room::of(most), app, stopping));
        (streams, stop)
    }

    async fn connected(streams: &mpsc::Sender<DuplexStream>) -> DuplexStream {
        let (mine, theirs) = tokio::io::duplex(4096);
        streams.send(theirs).await.unwrap();
        mine
    }

    /// An answer; whether the connection ends with it.
    async fn ask(stream: &mut DuplexStream) -> bool {
        let request = b"GET / HTTP/1.1\r\nHost: farm\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"well") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
        let answer = String::from_utf8(answer).unwrap().to_lowercase();
        answer.contains("connection: close")
    }

    #[tokio::test]
    async fn where_most_places_are_taken_some_end_that_nobody_uses() {
        let (streams, _stop) = serving(8);
        let all = async {
            let mut idle = Vec::new();
            for _ in 0..5 {
                let mut stream = connected(&streams).await;
                assert!(!ask(&mut stream).await);
                idle.push(stream);
            }
            // Some say nothing, and are in the way.
            let _silent = [connected(&streams).await, connected(&streams).await];
            let reads = idle
                .iter_mut()
                .map(|stream| Box::pin(async { stream.read(&mut [0; 8]).await.unwrap() }));
            let (ended, ..) = futures_util::future::select_all(reads).await;
            assert_eq!(ended, 0);
            ask(&mut connected(&streams).await).await;
        };
        tokio::time::timeout(LONG, all).await.unwrap();
    }

    #[tokio::test]
    async fn where_most_places_are_taken_each_request_is_answered_and_a_socket_opened() {
        let (streams, _stop) = serving(1);
        let all = async {
            let mut stream = connected(&streams).await;
            assert!(ask(&mut stream).await);
            assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
            let stream = connected(&streams).await;
            let opened = tokio_tungstenite::client_async("ws://farm/socket", stream);
            let (mut socket, _) = opened.await.unwrap();
            let said = tokio_tungstenite::tungstenite::Message::text("hello");
            futures_util::SinkExt::send(&mut socket, said.clone())
                .await
                .unwrap();
            let heard = futures_util::StreamExt::next(&mut socket).await;
            assert_eq!(heard.unwrap().unwrap(), said);
        };
        tokio::time::timeout(LONG, all).await.unwrap();
    }
}
