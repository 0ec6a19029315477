//! A server and one worker.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use kiln_core::farm::OfferedImage;
use kiln_vm::{
    dummy::{Call, Dummy},
    network::Farm as Internal,
};
use kiln_wire::{
    client::{Client, Options},
    testing::Server,
};
use kiln_worker::{
    Limits,
    farm::{Config, Host, Place, Request, Room, Unfit, Wish, run},
};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// Long for a busy machine; reached only by what has failed.
pub const LONG: Duration = Duration::from_secs(60);

/// A host with the dummy machine.
#[derive(Clone)]
pub struct DummyHost(Arc<Mutex<Inner>>);

struct Inner {
    machine: Dummy,
    room: Room,
    sick: Option<String>,
    unfit: Option<String>,
    internal: Option<Arc<dyn Internal>>,
}

impl DummyHost {
    pub fn new(machine: Dummy) -> Self {
        let room = Room {
            more: 100,
            short_of: None,
        };
        Self(Arc::new(Mutex::new(Inner {
            machine,
            room,
            sick: None,
            unfit: None,
            internal: None,
        })))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    /// The next guests are this machine's.
    pub fn becomes(&self, machine: Dummy) {
        self.change(|inner| inner.machine = machine);
    }

    /// What its check says.
    pub fn feels(&self, sick: Option<&str>) {
        self.change(|inner| inner.sick = sick.map(str::to_owned));
    }

    /// What it says to the next jobs.
    pub fn takes_none(&self, why: Option<&str>) {
        self.change(|inner| inner.unfit = why.map(str::to_owned));
    }

    pub fn has_room(&self, more: u32, short_of: &str) {
        let short_of = Some(short_of.to_owned());
        self.change(|inner| inner.room = Room { more, short_of });
    }

    /// What its guests were asked for.
    pub fn calls(&self) -> Vec<Call> {
        self.change(|inner| inner.machine.calls())
    }

    /// What the last guest has at `farm.internal`.
    pub fn internal(&self) -> Arc<dyn Internal> {
        self.change(|inner| inner.internal.clone()).unwrap()
    }
}

#[async_trait]
impl Host for DummyHost {
    async fn images(&self) -> Vec<OfferedImage> {
        vec![OfferedImage {
            name: "dummy".into(),
            arch: "x86_64".into(),
            digest: "d1".into(),
            default: true,
        }]
    }

    async fn room(&self, coming: u32) -> Room {
        let mut room = self.change(|inner| inner.room.clone());
        room.more = room.more.saturating_sub(coming);
        room
    }

    async fn check(&self) -> Result<(), String> {
        self.change(|inner| inner.sick.clone()).map_or(Ok(()), Err)
    }

    async fn place(&self, request: Request<'_>) -> Result<Place, Unfit> {
        std::fs::create_dir(request.dir.join("home")).map_err(|e| Unfit(e.to_string()))?;
        self.change(|inner| {
            inner.internal = Some(Arc::clone(&request.farm));
            if let Some(why) = &inner.unfit {
                return Err(Unfit(why.clone()));
            }
            Ok(Place {
                machine: Arc::new(inner.machine.clone()),
                spec: Dummy::spec(request.dir.to_owned()),
                digest: "d1".into(),
            })
        })
    }
}

/// A server and one worker of it.
pub struct Farm {
    pub server: Server,
    pub host: DummyHost,
    pub data: TempDir,
    wish: watch::Sender<Wish>,
    worker: JoinHandle<anyhow::Result<()>>,
}

impl Farm {
    pub fn start() -> Self {
        Self::on(Dummy::default())
    }

    pub fn on(machine: Dummy) -> Self {
        Self::with(machine, |_| {}, |_| {})
    }

    pub fn with(
        machine: Dummy,
        config: impl FnOnce(&mut Config),
        prepare: impl FnOnce(&Server),
    ) -> Self {
        let server = Server::start();
        prepare(&server);
        let data = tempfile::tempdir().unwrap();
        let host = DummyHost::new(machine);
        let mut settings = settings(&server, data.path().join("worker"));
        config(&mut settings);
        let (wish, wished) = watch::channel(Wish::Run);
        let worker = tokio::spawn(run(settings, Arc::new(host.clone()), wished));
        Self {
            server,
            host,
            data,
            wish,
            worker,
        }
    }

    pub fn wishes(&self, wish: Wish) {
        self.wish.send_replace(wish);
    }

    /// Waits until the worker has ended.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        soon(&mut self.worker).await.unwrap()
    }

    /// Ends the worker, all being well with it.
    pub async fn drained(mut self) {
        self.wishes(Wish::Drain);
        self.ended().await.unwrap();
    }
}

pub fn settings(server: &Server, data_dir: PathBuf) -> Config {
    Config {
        client: Client::new(&server.target(), &Options::default()).unwrap(),
        slots: 2,
        labels: BTreeMap::from([("ssd".to_owned(), "yes".to_owned())]),
        data_dir,
        limits: Limits::default(),
        spool: 1 << 20,
    }
}

/// A manifest with one task, `build`.
pub fn script(script: &str) -> String {
    let script = script.trim().replace('\n', "\n    ");
    format!("image: dummy\ntasks:\n- build: |\n    {script}\n")
}

/// A task's log without what its shell says of itself.
pub fn spoken(log: &str) -> String {
    let lines = log.split_inclusive('\n');
    lines.filter(|line| !line.starts_with('+')).collect()
}

/// What must come before long.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(LONG, what).await.expect("it never came")
}
