//! A server that says what it was asked, over any stream.

use std::{
    io::BufReader,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

/// What was asked, one line each: method, URI and the headers that matter.
#[derive(Clone, Default)]
pub struct Server(Arc<Mutex<Vec<String>>>);

impl Server {
    pub fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub fn note(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    pub async fn on_tcp(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                server.serve(stream);
            }
        });
        address
    }

    pub async fn with_tls(&self) -> SocketAddr {
        let pem = |text: &'static str| BufReader::new(text.as_bytes());
        let chain = CertificateDer::pem_reader_iter(pem(include_str!("tls/server.pem")));
        let key = PrivateKeyDer::from_pem_reader(pem(include_str!("tls/server.key"))).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    server.serve(stream);
                }
            }
        });
        address
    }

    pub fn on_socket(&self, path: &std::path::Path) {
        let listener = UnixListener::bind(path).unwrap();
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                server.serve(stream);
            }
        });
    }

    pub fn serve(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let server = self.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(server.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            // A client may go whenever it likes.
            let _ = connection.await;
        });
    }
}

async fn answer(
    server: Server,
    mut request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value
            .map_or("-", |value| value.to_str().unwrap())
            .to_owned()
    };
    server.note(format!(
        "{} {} host={} authorization={} proxy={}",
        request.method(),
        request.uri(),
        header("host"),
        header("authorization"),
        header("proxy-authorization")
    ));
    let answer = |status: StatusCode, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        Ok(response)
    };
    match request.uri().path() {
        "/refused" => answer(
            StatusCode::UNAUTHORIZED,
            r#"{"error":"unauthorized","message":"this token is no worker's"}"#.into(),
        ),
        "/busy" => answer(StatusCode::SERVICE_UNAVAILABLE, "later".into()),
        "/long" => answer(StatusCode::OK, "x".repeat(100_000)),
        "/socket" => {
            let key = header("sec-websocket-key");
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let io = TokioIo::new(upgrade.await.unwrap());
                let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() {
                        socket.send(message).await.unwrap();
                    }
                }
            });
            let response = Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header(header::CONNECTION, "upgrade")
                .header(header::UPGRADE, "websocket")
                .header(
                    header::SEC_WEBSOCKET_ACCEPT,
                    derive_accept_key(key.as_bytes()),
                );
            Ok(response.body(Full::default()).unwrap())
        }
        _ => {
            let body = request.into_body().collect().await?.to_bytes();
            answer(StatusCode::OK, format!("{} bytes", body.len()))
        }
    }
}
