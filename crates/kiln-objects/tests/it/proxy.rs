//! What is between a server and its object store, and may be bad.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It comes through, and so does its answer.
    Through,
    /// It is answered with this status, and never comes through.
    Answered(u16),
    /// It comes through, and its answer does not: the connection is cut.
    CutAnswer,
    /// Nothing happens.
    Silence,
}

/// A proxy on loopback. Each connection has one request.
pub struct Proxy {
    pub address: SocketAddr,
    way: watch::Sender<Way>,
    /// Requests with a body: PUT and POST.
    pub writes: Arc<AtomicUsize>,
}

impl Proxy {
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = watch::Sender::new(Way::Through);
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            way: way.clone(),
            writes: Arc::default(),
        };
        let writes = Arc::clone(&proxy.writes);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server, way.clone(), Arc::clone(&writes)));
            }
        });
        proxy
    }

    /// What becomes of requests from now on.
    pub fn go(&self, way: Way) {
        self.way.send_replace(way);
    }

    pub fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }
}

/// One request, which is read whole; no connection has another.
async fn carry(
    mut client: TcpStream,
    server: SocketAddr,
    way: watch::Sender<Way>,
    writes: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    let Some(request) = request(&mut client).await? else {
        return Ok(());
    };
    if request.starts_with(b"PUT") || request.starts_with(b"POST") {
        writes.fetch_add(1, Ordering::SeqCst);
    }
    let mut now = way.subscribe();
    let way = *now.borrow_and_update();
    match way {
        Way::Answered(status) => {
            let text =
                format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            return client.write_all(text.as_bytes()).await;
        }
        Way::Silence => {
            // Until things change, and then it is cut.
            let _ = now.changed().await;
            return Ok(());
        }
        Way::Through | Way::CutAnswer => {}
    }
    let mut upstream = TcpStream::connect(server).await?;
    let line = request
        .windows(2)
        .position(|two| two == b"\r\n")
        .unwrap_or(0);
    upstream.write_all(&request[..line]).await?;
    upstream.write_all(b"\r\nconnection: close").await?;
    upstream.write_all(&request[line..]).await?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).await?;
    match way {
        Way::CutAnswer => Ok(()),
        _ => client.write_all(&answer).await,
    }
}

/// A whole request; none when the client goes away.
async fn request(client: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut request = Vec::new();
    loop {
        if client.read_buf(&mut request).await? == 0 {
            return Ok(None);
        }
        let end = request.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else { continue };
        let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap_or(0));
        while request.len() < end + 4 + length {
            if client.read_buf(&mut request).await? == 0 {
                return Ok(None);
            }
        }
        return Ok(Some(request));
    }
}
