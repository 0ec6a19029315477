//! Where the server listens.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use kiln_server::Listener;
use tokio::net::{TcpListener, UnixListener, UnixStream};

use super::tls;
use crate::{config::ServeConfig, exit::Failure};

/// What is listened at.
pub struct Bound {
    /// For the server.
    pub listeners: Vec<Listener>,
    /// The URL of the first.
    pub origin: String,
}

/// Takes the addresses.
///
/// # Errors
/// When one can't be had, or a file for TLS is wrong.
pub async fn bind(config: &ServeConfig) -> Result<Bound, Failure> {
    let fail = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => Failure::host(format!(
            "--listen {}: something listens there already; name another address, or port 0 for any that is free",
            config.listen
        )),
        _ => Failure::host(format!("--listen {}: {error}", config.listen)),
    };
    let tls = config.tls.as_ref().map(tls::server).transpose()?;
    let tcp = TcpListener::bind(config.listen).await.map_err(fail)?;
    let address = tcp.local_addr().map_err(fail)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let origin = format!("{scheme}://{}", named(address));
    let mut listeners = vec![match tls {
        Some(tls) => Listener::Tls(tcp, tls),
        None => Listener::Tcp(tcp),
    }];
    if let Some(path) = &config.unix {
        let socket = unix(path).await;
        let socket =
            socket.map_err(|error| Failure::host(format!("--unix {}: {error}", path.display())))?;
        listeners.push(Listener::Unix(socket));
    }
    Ok(Bound { listeners, origin })
}

/// An address by which others may find it.
fn named(address: SocketAddr) -> String {
    if !address.ip().is_unspecified() {
        return address.to_string();
    }
    let name = rustix::system::uname();
    let host = name.nodename().to_string_lossy();
    format!("{host}:{}", address.port())
}

/// A socket that nobody serves any more is in the way.
async fn unix(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt as _;
    let stale = path
        .symlink_metadata()
        .is_ok_and(|meta| meta.file_type().is_socket());
    if stale {
        match UnixStream::connect(path).await {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(_) => std::fs::remove_file(path)?,
        }
    }
    let socket = UnixListener::bind(path)?;
    // For a proxy in our group; whoever else comes has no token anyway.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(socket)
}

/// The host of a URL.
pub fn host(origin: &str) -> &str {
    let rest = origin.split_once("://").map_or(origin, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None if authority.parse::<IpAddr>().is_ok() => authority,
        None => authority.split(':').next().unwrap_or(authority),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_is_the_origins_host_without_a_port() {
        for (origin, expected) in [
            ("https://builds.example:8443/x", "builds.example"),
            ("http://127.0.0.1:8080", "127.0.0.1"),
            ("http://[::1]:8080", "::1"),
        ] {
            assert_eq!(host(origin), expected);
        }
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kiln.sock");
        let first = unix(&path).await.unwrap();
        assert_eq!(
            unix(&path).await.unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(first);
        assert!(unix(&path).await.is_ok());
    }
}
