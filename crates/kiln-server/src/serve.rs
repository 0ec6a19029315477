//! Connections and the life of a server.
//!
//! A server ends in this order: it says that it is not ready, so that a proxy before it
//! sends nobody here any more; it takes no more connections, requests in flight end, and
//! so do its passes; workers' sockets are closed with a word, for their leases go on. What
//! takes longer than [`GRACE`] is cut: whoever sent it sends it again, for all that workers
//! send may be sent twice.

mod accept;
mod health;
mod room;
mod slow;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{Router, response::Response};
use http::{HeaderValue, StatusCode, header};
use kiln_objects::Objects;
use kiln_store::Store;
use tokio::{
    io::DuplexStream,
    net::{TcpListener, UnixListener},
    sync::{mpsc, watch},
    task::JoinSet,
};

use self::room::Room;
use crate::{
    Config, background,
    index::StoreIndex,
    state::{Shared, State},
};

/// In how many seconds to ask again what can't be served now.
const AGAIN: HeaderValue = HeaderValue::from_static("5");
/// How long requests in flight may take when a server ends.
const GRACE: Duration = Duration::from_secs(10);

/// Where connections come from.
pub enum Listener {
    /// Plain TCP.
    Tcp(TcpListener),
    /// TLS.
    Tls(TcpListener, Arc<tokio_rustls::rustls::ServerConfig>),
    /// A socket of this host.
    Unix(UnixListener),
    /// This process: see `kiln_wire::client::Target::Memory`.
    Memory(mpsc::Receiver<DuplexStream>),
}

/// A server that runs. Dropped, it ends at once, as a process that is killed does.
pub struct Running {
    stop: watch::Sender<bool>,
    /// What accepts connections, and has them.
    listeners: JoinSet<()>,
    /// Passes in the background.
    passes: JoinSet<()>,
    state: Shared,
}

impl Running {
    /// Says from now on that it is not ready. Else nothing changes.
    pub fn leave(&self) {
        self.state.leaving.store(true, Ordering::Release);
    }

    /// Takes no more connections, lets requests in flight end (at most 10 s), and ends.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let ended = async {
            while self.listeners.join_next().await.is_some() {}
            self.state.sockets.none().await;
            while self.passes.join_next().await.is_some() {}
        };
        if tokio::time::timeout(GRACE, ended).await.is_err() {
            tracing::warn!("requests that took too long were cut");
        }
    }
}

/// Starts a server on a store.
///
/// # Errors
/// When the place of logs and artifacts, or the store, can't be used.
pub async fn start(
    config: Config,
    store: Store,
    listeners: Vec<Listener>,
) -> anyhow::Result<Running> {
    store.set_share_cap(config.share_cap).await?;
    let index = Arc::new(StoreIndex(store.clone()));
    let objects = Objects::at(config.objects.clone(), index).await?;
    let (stop, stopping) = watch::channel(false);
    let state = Arc::new(State::new(config, store, objects, stopping.clone())?);
    let app = routes(&state);
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let serve = accept::serve(listener, Room::default(), app.clone(), stopping.clone());
        accepting.spawn(serve);
    }
    Ok(Running {
        stop,
        listeners: accepting,
        passes: background::start(&state),
        state,
    })
}

fn routes(state: &Shared) -> Router {
    Router::new()
        .merge(health::router())
        .merge(crate::workers::router())
        .with_state(Arc::clone(state))
        .merge(crate::graphql::router(state))
        .merge(crate::web::router(state))
        .layer(axum::middleware::map_response(when_again))
}

/// Who is told that the farm's storage does not answer is told when to ask again.
async fn when_again(mut response: Response) -> Response {
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        let again = response.headers_mut().entry(header::RETRY_AFTER);
        again.or_insert(AGAIN);
    }
    response
}

#[cfg(test)]
mod tests;
