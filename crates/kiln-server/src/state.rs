//! What all requests share.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicBool},
};

use kiln_core::farm::WorkerId;
use kiln_objects::Objects;
use kiln_store::Store;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::{Semaphore, watch};

use crate::{
    Config,
    app::{board::Board, health::Health, holders::Holders, narrate::Lines, renewals::Renewals},
    background::{Failed, Reception, Round},
    hints::Hints,
    metrics::Metrics,
};

/// How many hellos wait for the database at once.
const HELLOS: usize = 4;

/// What all requests share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) objects: Objects,
    pub(crate) lines: Lines,
    pub(crate) hints: Hints,
    pub(crate) metrics: Metrics,
    /// This server among others: new at each start.
    pub(crate) name: String,
    /// Whether renewals can be received, and since when.
    pub(crate) reception: Reception,
    /// Jobs whose logs could not be packed lately.
    pub(crate) unpacked: Failed,
    /// Where the comparison of objects and rows is.
    pub(crate) round: Round,
    /// True once the server ends: answers without an end of their own end then.
    pub(crate) stopping: watch::Receiver<bool>,
    /// What was missing last.
    pub(crate) health: Health,
    /// True once the server is about to end: it serves as before, and is not ready.
    pub(crate) leaving: AtomicBool,
    /// WebSockets, which outlive their connections' requests.
    pub(crate) sockets: Sockets,
    /// What the sessions were told that speak with this server.
    pub(crate) board: Board,
    /// Hellos that are written at once; others wait.
    pub(crate) hellos: Semaphore,
    /// Renewals that wait to be written together.
    pub(crate) renewals: Renewals,
    /// Who reports, and for which jobs.
    pub(crate) holders: Holders,
}

/// As handlers get it.
pub(crate) type Shared = Arc<State>;

impl State {
    pub(crate) fn new(
        config: Config,
        store: Store,
        objects: Objects,
        stopping: watch::Receiver<bool>,
    ) -> std::io::Result<Self> {
        let mut random = [0; 16];
        getrandom(&mut random, GetRandomFlags::empty())?;
        Ok(Self {
            hints: Hints::new(config.bus.clone()),
            config,
            store,
            lines: Lines::of(&objects),
            objects,
            metrics: Metrics::default(),
            name: format!("{:032x}", u128::from_ne_bytes(random)),
            reception: Reception::default(),
            unpacked: Failed::default(),
            round: Round::default(),
            stopping,
            health: Health::default(),
            leaving: AtomicBool::new(false),
            sockets: Sockets::default(),
            board: Board::default(),
            hellos: Semaphore::new(HELLOS),
            renewals: Renewals::default(),
            holders: Holders::default(),
        })
    }
}

/// Waits until the server ends.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // Without a sender it has ended already.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Sockets that one worker's token may have at once: one for each of its processes, and
/// those whose ends nobody has noticed yet.
const SOCKETS: usize = 64;

/// Counts sockets, by whose they are.
#[derive(Debug, Default)]
pub(crate) struct Sockets(watch::Sender<HashMap<WorkerId, usize>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    all: watch::Sender<HashMap<WorkerId, usize>>,
    worker: WorkerId,
}

impl Sockets {
    /// Counts one of this worker; none when it has too many.
    pub(crate) fn add(&self, worker: WorkerId) -> Option<Socket> {
        let added = self.0.send_if_modified(|all| {
            let count = all.entry(worker).or_default();
            let room = *count < SOCKETS;
            *count += usize::from(room);
            room
        });
        added.then(|| Socket {
            all: self.0.clone(),
            worker,
        })
    }

    /// Waits until there is none.
    pub(crate) async fn none(&self) {
        // It can't fail: the sender is here.
        let _ = self.0.subscribe().wait_for(HashMap::is_empty).await;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.all.send_modify(|all| {
            if let Some(count) = all.get_mut(&self.worker) {
                *count -= 1;
                if *count == 0 {
                    all.remove(&self.worker);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_worker_has_so_many_sockets_and_takes_no_room_from_others() {
        let sockets = Sockets::default();
        let mut all: Vec<_> = (0..SOCKETS)
            .map(|_| sockets.add(WorkerId(1)).unwrap())
            .collect();
        assert!(sockets.add(WorkerId(1)).is_none());
        assert!(sockets.add(WorkerId(2)).is_some());
        all.pop();
        assert!(sockets.add(WorkerId(1)).is_some());
        drop(all);
        sockets.none().await;
    }
}
