//! Carries the guest's connections to an opened loopback address of the host.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::Allowed;
use crate::namespace::{Error, Namespace};

/// Forwards that end when dropped.
pub(crate) struct Forwards(Vec<JoinHandle<()>>);

impl Forwards {
    /// Listens on the namespace's loopback, which is the guest's 10.0.2.2, for
    /// each opened loopback address.
    ///
    /// # Errors
    /// When the namespace is gone or two of them have the same port.
    pub async fn open(namespace: &Namespace, allow: &[Allowed]) -> Result<Self, Error> {
        let mut forwards = Self(Vec::new());
        for allowed in allow.iter().filter(|allowed| allowed.address.is_loopback()) {
            let Some(port) = allowed.port else { continue };
            let inside = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let outside = SocketAddr::new(allowed.address, port);
            let listener = namespace.listen(inside).await?;
            forwards.0.push(tokio::spawn(carry(listener, outside)));
        }
        Ok(forwards)
    }
}

impl Drop for Forwards {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

async fn carry(listener: TcpListener, outside: SocketAddr) {
    while let Ok((mut guest, _)) = listener.accept().await {
        tokio::spawn(async move {
            match TcpStream::connect(outside).await {
                Ok(mut host) => {
                    let _ = tokio::io::copy_bidirectional(&mut guest, &mut host).await;
                }
                Err(error) => tracing::debug!(%outside, %error, "opened address answers not"),
            }
        });
    }
}
