//! An HTTP proxy: it tunnels for CONNECT, and passes other requests on.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::server::Server;

/// Starts one that leads everything to this server, whatever it is asked for. What
/// it is asked goes to `seen`.
pub async fn start(to: SocketAddr, seen: Server, answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, to, seen.clone(), answer));
        }
    });
    address
}

async fn serve(mut client: TcpStream, to: SocketAddr, seen: Server, answer: &'static str) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match client.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let text = String::from_utf8(head.clone()).unwrap();
    seen.note(text.replace("\r\n", " ").trim_end().to_owned());
    let mut server = TcpStream::connect(to).await.unwrap();
    if text.starts_with("CONNECT ") {
        client.write_all(answer.as_bytes()).await.unwrap();
        if !answer.contains(" 200 ") {
            return;
        }
    } else {
        server.write_all(&head).await.unwrap();
    }
    // Whoever goes first ends it.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}
