//! Taking connections and having HTTP/1 on them.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::{
    Listener,
    slow::{Patient, Taken},
};
use crate::state::stopped;

/// How many connections a listener has at once; further ones wait in the kernel.
const CONNECTIONS: usize = 4096;
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

/// Takes connections until the server ends, and until the last of them has ended.
pub(super) async fn serve(
    mut listener: Listener,
    app: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (accept(&mut listener).await, permit.ok())
        };
        tokio::select! {
            () = stopped(&mut stopping) => break,
            Some(_) = connections.join_next() => {}
            (accepted, permit) = next => match accepted {
                Ok(Some(accepted)) => {
                    let stopping = stopping.clone();
                    connections.spawn(connection(accepted, app.clone(), stopping, permit));
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
    _permit: Option<OwnedSemaphorePermit>,
) {
    match accepted {
        Accepted::Plain(stream) => http(stream, app, stopping).await,
        Accepted::Tls(stream, acceptor) => {
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => http(stream, app, stopping).await,
                Ok(Err(error)) => tracing::debug!("TLS failed: {error}"),
                Err(_) => tracing::debug!("TLS took too long"),
            }
        }
    }
}

async fn http(stream: impl Stream + 'static, app: Router, mut stopping: watch::Receiver<bool>) {
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let app = app.clone();
        async move {
            let request = request.map(|body| axum::body::Body::new(Patient::new(body)));
            Ok::<_, Infallible>(
                app.oneshot(request)
                    .await
                    .unwrap_or_else(|never| match never {}),
            )
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
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}
