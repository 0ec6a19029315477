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
    token::{self, Kind},
};
use tokio::time::{sleep, timeout};

use super::{
    disk::Disk,
    engines::Engines,
    kinds::Shape,
    link::{self, Link, To, Way},
    plan::{Size, owner},
    process::{Process, Program},
    record::Record,
    tap::Tap,
};

const SERVERS: usize = 2;
const WORKERS: usize = 4;
const SLOTS: u32 = 4;
/// A worker's disk, in MiB: the spool of each job takes 65 at once, and that of the one before
/// goes when the next one may have come.
const DISK: u32 = 600;

pub struct Server {
    pub process: Process,
    /// Its ways to the engines.
    pub database: Link,
    pub bus: Link,
    pub s3: Link,
    /// Where it listens.
    pub address: SocketAddr,
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
    /// By owners.
    pub tokens: Vec<String>,
    pub store: Store,
    pub engines: Engines,
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
        let kiln = Path::new(env!("CARGO_BIN_EXE_kiln"));
        if fs::hard_link(kiln, dir.join("kiln")).is_err() {
            fs::copy(kiln, dir.join("kiln")).expect("a file");
        }
        let engines = Engines::start().await;
        let config = Config {
            url: engines.database.clone(),
            migrate: true,
        };
        let store = Store::open(&config).await.expect("a database");
        let mut farm_servers = Vec::new();
        let mut ready = Vec::new();
        let ports = free_ports(SERVERS).await;
        for (place, address) in ports.iter().enumerate() {
            farm_servers.push(server(dir, place, *address, &engines).await);
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
            disks: workers.iter().all(|worker| worker.disk.is_some())
                && engines.postgres_disk.is_some()
                && engines.s3_disk.is_some(),
        };
        let tokens = owners(&store, size.owners).await;
        Self {
            shape,
            record,
            servers: farm_servers,
            workers,
            clients,
            tokens,
            store,
            engines,
        }
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

    /// All that is between two parts.
    pub fn ways(&self) -> Vec<&Way> {
        let servers = self.servers.iter();
        let servers = servers.flat_map(|server| [&server.database, &server.bus, &server.s3]);
        let workers = self.workers.iter().map(|worker| &worker.link);
        let links = servers.chain(workers).chain([&self.clients]);
        links.flat_map(|link| &link.ways).collect()
    }

    /// How often processes were started.
    pub fn starts(&self) -> u32 {
        let servers = self.servers.iter().map(|server| &server.process);
        let workers = self.workers.iter().map(|worker| &worker.process);
        servers.chain(workers).map(Process::starts).sum()
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

async fn server(dir: &Path, place: usize, address: SocketAddr, engines: &Engines) -> Server {
    let name = format!("server-{place}");
    let data = dir.join(&name);
    let database = Link::to(To::Unix(engines.postgres_socket())).await;
    let bus = Link::to(To::Tcp(engines.redis_address())).await;
    let s3 = Link::to(To::Tcp(engines.s3_address())).await;
    let bucket = &engines.bucket;
    let words = [
        "serve".to_owned(),
        "--no-worker".to_owned(),
        format!("--listen={address}"),
        format!("--data={}", data.display()),
        format!(
            "--database=postgres://kiln@{}/{}",
            database.address,
            engines.database_name()
        ),
        format!("--bus=redis://{}", bus.address),
        format!("--objects=s3://{}/{}", bucket.bucket, bucket.prefix),
        format!("--s3-endpoint=http://{}", s3.address),
        format!("--s3-access-key={}", bucket.access_key),
    ];
    let mut program = program(dir, name, words.into());
    let secret = ("KILN_S3_SECRET_KEY".to_owned(), bucket.secret_key.clone());
    program.environment.push(secret);
    Server {
        process: Process::start(program),
        database,
        bus,
        s3,
        address,
        place,
    }
}

/// A file that nobody else may read.
fn secret(dir: &Path, name: &str, text: &str) -> PathBuf {
    let file = dir.join(name);
    fs::write(&file, text).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode");
    file
}

async fn worker(dir: &Path, place: usize, link: Link, store: &Store) -> Worker {
    let name = worker_name(place);
    let data = dir.join(&name);
    let disk = Disk::mount(&data, DISK);
    let (token, hash) = token::make(Kind::Worker).expect("random numbers");
    store.add_worker(&name, hash).await.expect("a worker");
    let token = secret(dir, &format!("{name}.token"), &token);
    let words = [
        "worker".to_owned(),
        "--dummy".to_owned(),
        format!("--slots={SLOTS}"),
        format!("--server=http://{}", link.address),
        format!("--token-file={}", token.display()),
        format!("--data={}", data.display()),
    ];
    Worker {
        process: Process::start(program(dir, name, words.into())),
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
