use std::{collections::BTreeMap, time::Duration};

use kiln_core::farm::SessionId;
use kiln_store::model::TokenHash;
use kiln_wire::{
    client::{Client, Options, Target},
    message::{FromServer, FromWorker, Hello, Mood, PROTOCOL, State as WorkerState},
};
use sha2::{Digest as _, Sha256};

use super::*;

/// Longer than anything here takes: what waits so long has failed.
const LONG: Duration = Duration::from_secs(20);

/// A server, and a worker of it.
async fn farm() -> (Running, Client, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config = kiln_store::Config {
        url: "sqlite::memory:".to_owned(),
        migrate: true,
    };
    let store = Store::open(&config).await.unwrap();
    let hash = TokenHash(Sha256::digest("kiln_w_one").into());
    store.add_worker("one", hash).await.unwrap();
    let config = Config {
        objects: dir.path().join("objects").into(),
        bus: kiln_bus::Bus::in_process(),
        origin: "http://farm.test".to_owned(),
        site_name: "kiln".to_owned(),
        runner: "farm.test".to_owned(),
        ssh_user: "builds".to_owned(),
        job_timeout: Duration::from_hours(1),
        share_cap: None,
        artifact_limit: 1 << 30,
        retention: crate::Retention::default(),
    };
    let (memory, streams) = mpsc::channel(8);
    let running = start(config, store, vec![Listener::Memory(streams)]).await;
    let options = Options {
        token: Some("kiln_w_one".to_owned()),
        ..Options::default()
    };
    let client = Client::new(&Target::Memory(memory), &options).unwrap();
    (running.unwrap(), client, dir)
}

fn hello() -> FromWorker {
    FromWorker::Hello(Hello {
        protocol: PROTOCOL,
        version: "0.1.0".to_owned(),
        session: SessionId::new([1; 16]),
        slots: 1,
        labels: BTreeMap::new(),
        state: WorkerState {
            capacity: 1,
            images: Vec::new(),
            mood: Mood::Ready,
            short_of: None,
        },
        leases: Vec::new(),
    })
}

#[tokio::test]
async fn a_hello_whose_worker_gave_up_waiting_is_not_done() {
    let (running, client, _dir) = farm().await;
    let state = &running.state;
    // Others say hello.
    let taken = u32::try_from(state.hellos.available_permits()).unwrap();
    let others = state.hellos.acquire_many(taken).await.unwrap();
    let mut socket = client.connect().await.unwrap();
    socket.send(&hello()).await.unwrap();
    drop(socket);
    let gone = tokio::time::timeout(LONG, state.sockets.none());
    gone.await.expect("nobody waits for it any more");
    drop(others);
    assert!(state.store.sessions().await.unwrap().is_empty());
    let mut socket = client.connect().await.unwrap();
    socket.send(&hello()).await.unwrap();
    let welcome = socket.next().await.unwrap();
    assert!(matches!(welcome, FromServer::Welcome { .. }), "{welcome:?}");
}
