//! What listens at the guest's 10.0.2.2: the farm's service, and forwards to
//! the loopback addresses of the host that the operator opened.

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use super::{Allowed, Farm, farm::FARM_PORT};
use crate::namespace::{Error, Namespace};

/// How many connections of a guest to one port are carried at once; further
/// ones wait in the listener's queue. They are descriptors of kiln's own, and
/// kiln carries many guests.
const MAX_CONNECTIONS: usize = 64;

/// How long a listener rests after it failed: for want of descriptors, say.
const REST: Duration = Duration::from_millis(100);

/// Listeners that end when dropped, and all their connections with them.
pub(crate) struct Forwards(Vec<JoinHandle<()>>);

impl Forwards {
    /// Listens on the namespace's loopback, which is the guest's 10.0.2.2, for
    /// the farm and each opened loopback address.
    ///
    /// # Errors
    /// When the namespace is gone or two of them have the same port.
    pub async fn open(
        namespace: &Namespace,
        allow: &[Allowed],
        farm: Option<&Arc<dyn Farm>>,
    ) -> Result<Self, Error> {
        let mut forwards = Self(Vec::new());
        if let Some(farm) = farm {
            let listener = namespace.listen(inside(FARM_PORT)).await?;
            let farm = Arc::clone(farm);
            forwards.accept(listener, move |guest| {
                let farm = Arc::clone(&farm);
                async move { farm.serve(guest).await }
            });
        }
        for allowed in allow.iter().filter(|allowed| allowed.address.is_loopback()) {
            let Some(port) = allowed.port else { continue };
            let outside = SocketAddr::new(allowed.address, port);
            let listener = namespace.listen(inside(port)).await?;
            forwards.accept(listener, move |guest| carry(guest, outside));
        }
        Ok(forwards)
    }

    fn accept<F>(
        &mut self,
        listener: TcpListener,
        serve: impl Fn(TcpStream) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.push(tokio::spawn(accept(listener, serve)));
    }
}

impl Drop for Forwards {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

fn inside(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Serves each connection in a task of its own, which ends with this one.
async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut serving = JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        while serving.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((guest, _)) => {
                let served = serve(guest);
                serving.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection of the guest was not accepted");
                sleep(REST).await;
            }
        }
    }
}

async fn carry(mut guest: TcpStream, outside: SocketAddr) {
    match TcpStream::connect(outside).await {
        Ok(mut host) => {
            // What comes in small pieces is not kept back for more.
            let _ = (guest.set_nodelay(true), host.set_nodelay(true));
            let _ = tokio::io::copy_bidirectional(&mut guest, &mut host).await;
        }
        Err(error) => tracing::debug!(%outside, %error, "opened address answers not"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn greet(mut guest: TcpStream) {
        let _ = guest.write_all(b"hello").await;
        let _ = guest.read(&mut [0]).await;
    }

    #[tokio::test]
    async fn more_connections_than_are_carried_wait_until_one_ends() {
        let listener = TcpListener::bind(inside(0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut forwards = Forwards(Vec::new());
        forwards.accept(listener, greet);
        let mut served = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let mut guest = TcpStream::connect(address).await.unwrap();
            guest.read_exact(&mut [0; 5]).await.unwrap();
            served.push(guest);
        }
        let mut waiting = TcpStream::connect(address).await.unwrap();
        let early = tokio::time::timeout(REST, waiting.read_exact(&mut [0; 5])).await;
        assert!(early.is_err(), "one too many was served");
        served.pop();
        waiting.read_exact(&mut [0; 5]).await.unwrap();
        drop(forwards);
        assert_eq!(waiting.read(&mut [0]).await.unwrap_or(0), 0);
    }
}
