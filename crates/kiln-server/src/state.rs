//! What all requests share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use kiln_core::farm::SessionId;
use kiln_objects::Objects;
use kiln_store::Store;
use tokio::sync::{oneshot, watch};

use crate::{Config, background::Reception, hints::Hints, metrics::Metrics};

/// What all requests share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) objects: Objects,
    pub(crate) hints: Hints,
    pub(crate) metrics: Metrics,
    /// Whether renewals can be received, and since when.
    pub(crate) reception: Reception,
    /// True once the server ends: answers without an end of their own end then.
    pub(crate) stopping: watch::Receiver<bool>,
    /// WebSockets, which outlive their connections' requests.
    pub(crate) sockets: Sockets,
    /// The one socket of each session that speaks for it.
    pub(crate) voices: Voices,
}

/// As handlers get it.
pub(crate) type Shared = Arc<State>;

impl State {
    pub(crate) fn new(
        config: Config,
        store: Store,
        objects: Objects,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            config,
            store,
            objects,
            hints: Hints::default(),
            metrics: Metrics::default(),
            reception: Reception::default(),
            stopping,
            sockets: Sockets::default(),
            voices: Voices::default(),
        }
    }
}

/// Waits until the server ends.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // Without a sender it has ended already.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// The socket of each session that speaks for it: the last one. Others, whose ends
/// nobody has noticed yet, are told to go, so that no lease is offered on two.
#[derive(Debug, Default)]
pub(crate) struct Voices(Mutex<HashMap<SessionId, oneshot::Sender<()>>>);

impl Voices {
    /// Speaks for a session from now on, until another does: then this ends.
    pub(crate) fn take(&self, session: &SessionId) -> oneshot::Receiver<()> {
        let (taken, mine) = oneshot::channel();
        let mut voices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        voices.retain(|_, voice| !voice.is_closed());
        // The one before hears that it is dropped.
        voices.insert(session.clone(), taken);
        mine
    }
}

/// Counts sockets.
#[derive(Debug, Default)]
pub(crate) struct Sockets(watch::Sender<usize>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Socket(watch::Sender<usize>);

impl Sockets {
    pub(crate) fn add(&self) -> Socket {
        self.0.send_modify(|count| *count += 1);
        Socket(self.0.clone())
    }

    /// Waits until there is none.
    pub(crate) async fn none(&self) {
        // It can't fail: the sender is here.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
