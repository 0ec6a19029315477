//! The farm: servers, workers, their engines, and what is between them.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use kiln_core::farm::Grants;
use kiln_store::{
    Config, Store,
    testing::Postgres,
    token::{self, Kind},
};
use tokio::time::{sleep, timeout};

use super::{
    disk::Disk,
    faults::Shape,
    link::{self, Link, To, Way},
    plan::{Size, owner},
    process::{Process, Program},
    record::Record,
    tap::Tap,
};

const SERVERS: usize = 1;
const WORKERS: usize = 4;
const SLOTS: u32 = 4;
/// A worker's disk, in MiB: the spool of each job takes 65 at once.
const DISK: u32 = 300;

pub struct Server {
    pub process: Process,
    /// Its way to the database.
    pub database: Link,
    place: usize,
}

impl Server {
    /// Which of the ways to all servers leads here.
    pub fn ways(&self) -> std::ops::RangeInclusive<usize> {
        self.place..=self.place
    }
}

pub struct Worker {
    pub process: Process,
    /// Its ways to the servers.
    pub link: Link,
    pub disk: Option<Disk>,
}

pub struct Farm {
    pub shape: Shape,
    pub record: Record,
    pub servers: Vec<Server>,
    pub workers: Vec<Worker>,
    /// The clients' ways to the servers.
    pub clients: Link,
    /// Of all servers, where that is a directory.
    pub disk: Option<Disk>,
    /// By owners.
    pub tokens: Vec<String>,
    pub store: Store,
    postgres: Arc<Postgres>,
}

/// A worker's name.
pub fn worker_name(place: usize) -> String {
    format!("worker-{place}")
}

impl Farm {
    /// Starts one with its files below this directory.
    pub async fn start(dir: &Path, size: &Size, record: Record) -> Self {
        fs::create_dir_all(dir.join("logs")).expect("a directory");
        // What is built meanwhile is not what runs.
        fs::hard_link(env!("CARGO_BIN_EXE_kiln"), dir.join("kiln")).expect("a file");
        let postgres = tokio::task::spawn_blocking(Postgres::start);
        let postgres = Arc::new(postgres.await.expect("a thread").expect("PostgreSQL"));
        let url = postgres.database().expect("a database");
        let config = Config {
            url: url.clone(),
            migrate: true,
        };
        let store = Store::open(&config).await.expect("a database");
        let disk = Disk::mount(&dir.join("data"), 256);
        let ports = free_ports(SERVERS).await;
        let mut farm_servers = Vec::new();
        let mut ready = Vec::new();
        for (place, address) in ports.iter().enumerate() {
            let socket = postgres.directory().join(".s.PGSQL.5432");
            let database = Link::to(To::Unix(socket)).await;
            let name = url
                .split('?')
                .next()
                .expect("a URL")
                .rsplit('/')
                .next()
                .expect("a name");
            let url = format!("postgres://kiln@{}/{name}", database.address);
            farm_servers.push(Server {
                process: server(dir, place, *address, &url),
                database,
                place,
            });
            let is_ready = Arc::new(AtomicBool::new(false));
            tokio::spawn(link::ask(*address, Arc::clone(&is_ready)));
            ready.push(is_ready);
        }
        let ways = || -> Vec<Way> {
            let each = std::iter::zip(&ports, &ready);
            each.map(|(address, ready)| Way::new(To::Tcp(*address), Arc::clone(ready)))
                .collect()
        };
        let clients = Link::over(ways(), None).await;
        let mut workers = Vec::new();
        for place in 0..WORKERS {
            let link = Link::over(ways(), Some(Tap::new(record.clone()))).await;
            workers.push(worker(dir, place, link, &store).await);
        }
        let shape = Shape {
            servers: farm_servers.len(),
            workers: workers.len(),
            clocks: farm_servers.iter().all(|server| server.process.has_clock()),
            disks: disk.is_some() && workers.iter().all(|worker| worker.disk.is_some()),
            bus: false,
            s3: false,
        };
        let tokens = owners(&store, size.owners).await;
        Self {
            shape,
            record,
            servers: farm_servers,
            workers,
            clients,
            disk,
            tokens,
            store,
            postgres,
        }
    }

    /// Takes the database away for so long.
    pub async fn postgres_away(&self, crash: bool, length: Duration) {
        let stop = Arc::clone(&self.postgres);
        blocking(move || if crash { stop.kill() } else { stop.stop() }).await;
        sleep(length).await;
        let start = Arc::clone(&self.postgres);
        blocking(move || start.start_again()).await;
    }

    /// Waits until all workers are there.
    pub async fn is_up(&self) {
        let up = async {
            loop {
                let sessions = self.store.sessions().await.map_or(0, |all| all.len());
                if sessions >= self.workers.len() {
                    return;
                }
                sleep(Duration::from_millis(200)).await;
            }
        };
        let up = timeout(Duration::from_secs(120), up).await;
        up.expect("the farm does not come up; see its logs");
    }

    /// Ends all its processes.
    pub async fn end(self) {
        for worker in self.workers {
            worker.process.end().await;
        }
        for server in self.servers {
            server.process.end().await;
        }
    }
}

async fn blocking(what: impl FnOnce() -> std::io::Result<()> + Send + 'static) {
    let done = tokio::task::spawn_blocking(what).await.expect("a thread");
    done.expect("an engine does what it is told");
}

/// Of this host, free a moment ago.
async fn free_ports(count: usize) -> Vec<SocketAddr> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(
            tokio::net::TcpListener::bind("127.0.0.1:0")
                .await
                .expect("a port"),
        );
    }
    held.iter()
        .map(|held| held.local_addr().expect("an address"))
        .collect()
}

async fn owners(store: &Store, count: usize) -> Vec<String> {
    let grants: Grants = "JOBS:RW LOGS:RO PROFILE:RO".parse().expect("grants");
    let mut tokens = Vec::new();
    for place in 0..count {
        let name = owner(place);
        let user = store.add_user(&name, "chaos@example.org", false).await;
        let (token, hash) = token::make(Kind::User).expect("random numbers");
        let user = user.expect("a user").id;
        store
            .add_token(user, hash, &grants, None)
            .await
            .expect("a token");
        tokens.push(token);
    }
    tokens
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn server(dir: &Path, place: usize, address: SocketAddr, database: &str) -> Process {
    let name = format!("server-{place}");
    let data: PathBuf = dir.join("data").join(&name);
    fs::create_dir_all(&data).expect("a directory");
    let mut words = texts(&["serve", "--no-worker", "--listen"]);
    words.extend([
        address.to_string(),
        "--database".to_owned(),
        database.to_owned(),
    ]);
    words.extend(["--data".to_owned(), data.display().to_string()]);
    Process::start(program(dir, name, words))
}

async fn worker(dir: &Path, place: usize, link: Link, store: &Store) -> Worker {
    let name = worker_name(place);
    let data = dir.join(&name);
    let disk = Disk::mount(&data, DISK);
    let (token, hash) = token::make(Kind::Worker).expect("random numbers");
    store.add_worker(&name, hash).await.expect("a worker");
    let file = dir.join(format!("{name}.token"));
    fs::write(&file, token).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode");
    let mut words = texts(&["worker", "--dummy", "--slots"]);
    words.extend([SLOTS.to_string(), "--server".to_owned()]);
    words.extend([
        format!("http://{}", link.address),
        "--token-file".to_owned(),
    ]);
    words.extend([file.display().to_string(), "--data".to_owned()]);
    words.push(data.display().to_string());
    Worker {
        process: Process::start(program(dir, name, words)),
        link,
        disk,
    }
}

fn program(dir: &Path, name: String, words: Vec<String>) -> Program {
    Program {
        file: dir.join("kiln"),
        log: dir.join("logs").join(format!("{name}.log")),
        clock: Some(dir.join(format!("{name}.clock"))),
        environment: vec![
            ("HOME".to_owned(), dir.display().to_string()),
            ("XDG_RUNTIME_DIR".to_owned(), dir.display().to_string()),
        ],
        name,
        words,
    }
}
