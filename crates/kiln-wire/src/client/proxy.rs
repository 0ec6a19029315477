//! Asking an HTTP proxy for a tunnel.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    address::{Address, Proxy},
    connect::ConnectError,
};

/// The longest head of an answer. What a proxy says beyond is no proxy's.
const HEAD: usize = 16 << 10;

/// Makes a connection to a proxy one to the server behind it.
pub(super) async fn tunnel(
    stream: &mut TcpStream,
    proxy: &Proxy,
    to: &Address,
) -> Result<(), ConnectError> {
    let host = if to.host.contains(':') {
        format!("[{}]", to.host)
    } else {
        to.host.clone()
    };
    let mut request = format!(
        "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n",
        port = to.port
    );
    if let Some(credentials) = &proxy.credentials {
        request.push_str(&format!("Proxy-Authorization: {credentials}\r\n"));
    }
    request.push_str("\r\n");
    let failed = |why: String| ConnectError::Proxy {
        proxy: proxy.name(),
        why,
    };
    let io = |error: std::io::Error| failed(error.to_string());
    stream.write_all(request.as_bytes()).await.map_err(io)?;
    // One byte at a time: nothing behind the head may be taken, it is the server's.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD {
            return Err(failed("its answer has no end".to_owned()));
        }
        head.push(stream.read_u8().await.map_err(io)?);
    }
    let head = String::from_utf8_lossy(&head);
    let status = head.lines().next().unwrap_or_default();
    let mut words = status.splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    let code = words.next().unwrap_or_default();
    if !version.starts_with("HTTP/1.") {
        return Err(failed("it doesn't answer as a proxy does".to_owned()));
    }
    match code {
        "200" => Ok(()),
        "407" => Err(failed(
            "it wants a user and a password (407); write them into its URL".to_owned(),
        )),
        _ => Err(failed(format!(
            "it refuses to connect to {host}:{} ({})",
            to.port,
            status.get(version.len()..).unwrap_or_default().trim()
        ))),
    }
}
