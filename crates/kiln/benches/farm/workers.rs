//! Many workers on one server, simulated in this process by the real protocol: what they
//! cost, and how soon a job is claimed then.

#![expect(clippy::print_stdout, reason = "it takes minutes")]

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use kiln_core::farm::{Fence, JobId, OfferedImage, SessionId, limits};
use kiln_store::{
    Store,
    testing::{self, Postgres},
};
use kiln_wire::message::{FromServer, FromWorker, Hello, Mood, PROTOCOL, State};
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    Report,
    farm::{self, Farm, IMAGE, client, manifest},
    table::{Table, percentile},
};

/// How many at once; `BENCH_WORKERS` names others.
const COUNTS: &str = "1000,10000";
/// Of so many workers one has a lease.
const BUSY: usize = 10;
/// Workers that connect at once.
const CONNECTING: usize = 64;
/// How long a farm with all of its workers is watched.
const WATCH: Duration = Duration::from_mins(1);
/// Time between two submissions then.
const PAUSE: Duration = Duration::from_millis(300);
/// How long anything here may take.
const LONG: Duration = Duration::from_mins(10);
/// The aim: processor time for each second.
const AIM: f64 = 1.0;

pub async fn measure() -> Result<Report> {
    let counts = std::env::var("BENCH_WORKERS").unwrap_or_else(|_| COUNTS.to_owned());
    let counts = counts.split(',').map(|count| count.trim().parse::<usize>());
    let counts: Vec<usize> = counts.collect::<Result<_, _>>()?;
    let most = counts.iter().max().context("no workers")?;
    // The server inherits it.
    allow_files(u64::try_from(*most)? + 4096)?;
    let mut table = Table::new(
        "Workers connected, a tenth of them with a lease",
        &[
            "database and workers",
            "server MiB",
            "server cores",
            "database cores",
            "connected in s",
            "claim p50 ms",
            "p99 ms",
            "",
        ],
    );
    let mut figures = Vec::new();
    for engine in ["PostgreSQL", "SQLite"] {
        for &count in &counts {
            println!("  {engine}, {count} workers");
            let seen = one(engine, count).await?;
            table.row([
                format!("{engine}, {count}"),
                format!("{:.0}", seen.memory),
                format!("{:.2}", seen.server),
                seen.database
                    .map_or("–".to_owned(), |cores| format!("{cores:.2}")),
                format!("{:.1}", seen.connected.as_secs_f64()),
                format!("{:.1}", percentile(&seen.claims, 50)),
                format!("{:.1}", percentile(&seen.claims, 99)),
                if seen.server <= AIM { "met" } else { "missed" }.to_owned(),
            ]);
            figures.push(seen.json(engine, count));
        }
    }
    table.note("cores: processor time for each second, of the server's process and of all of PostgreSQL's;");
    table.note(
        "the aim is one core for the server; claim: from the submission to the offer at its worker",
    );
    Ok(Report {
        tables: vec![table],
        figures: figures.into(),
    })
}

/// What was seen of a farm with many workers.
struct Seen {
    connected: Duration,
    /// The server's resident memory, in MiB.
    memory: f64,
    server: f64,
    database: Option<f64>,
    /// In milliseconds.
    claims: Vec<f64>,
}

impl Seen {
    fn json(&self, engine: &str, count: usize) -> Value {
        json!({
            "engine": engine,
            "workers": count,
            "connected_s": self.connected.as_secs_f64(),
            "server_memory_mib": self.memory,
            "server_cores": self.server,
            "database_cores": self.database,
            "claim_p50_ms": percentile(&self.claims, 50),
            "claim_p99_ms": percentile(&self.claims, 99),
            "claims": self.claims.len(),
        })
    }
}

async fn one(engine: &str, count: usize) -> Result<Seen> {
    let postgres = match engine {
        "PostgreSQL" => Some(Postgres::start_durable()?),
        _ => None,
    };
    let database = postgres.as_ref().map(Postgres::database).transpose()?;
    let farm = Farm::start(database.as_deref(), &[]).await?;
    let store = kiln_store::Config {
        url: farm.store_url().to_owned(),
        migrate: false,
    };
    let store = Store::open(&store).await.context("the farm's store")?;
    let tokens = testing::add_workers(&store, count).await?;
    drop(store);
    let (offers, mut offered) = mpsc::unbounded_channel();
    let began = Instant::now();
    let mut workers = connect(&farm, tokens, &offers).await?;
    let connected = began.elapsed();
    let people = farm.client()?;
    let manifest = manifest("true");
    for _ in 0..count / BUSY {
        farm.submit(&people, &manifest).await?;
    }
    for _ in 0..count / BUSY {
        next(&mut offered).await?;
    }
    let processor = || -> Result<(Duration, Duration)> {
        let database = postgres
            .as_ref()
            .map(|postgres| of_postgres(postgres.directory()));
        Ok((
            farm.server().processor()?,
            database.transpose()?.unwrap_or_default(),
        ))
    };
    let (began, before) = (Instant::now(), processor()?);
    let mut claims = Vec::new();
    let mut submitted = HashMap::new();
    while began.elapsed() < WATCH {
        let at = Instant::now();
        let job = farm.submit(&people, &manifest).await?;
        submitted.insert(job, at);
        let (job, when) = next(&mut offered).await?;
        let at = submitted.remove(&job).context("an offer of another job")?;
        claims.push(when.duration_since(at).as_secs_f64() * 1e3);
        tokio::time::sleep(PAUSE).await;
    }
    if let Some(ended) = workers.try_join_next() {
        ended??;
        bail!("a worker ended");
    }
    let (after, passed) = (processor()?, began.elapsed().as_secs_f64());
    let memory = crate::memory::Memory::of(farm.server().pid()?)?.resident;
    Ok(Seen {
        connected,
        memory,
        server: (after.0 - before.0).as_secs_f64() / passed,
        database: postgres
            .is_some()
            .then(|| (after.1 - before.1).as_secs_f64() / passed),
        claims,
    })
}

/// The next offer.
pub async fn next(offered: &mut Offered) -> Result<(JobId, Instant)> {
    let offer = tokio::time::timeout(LONG, offered.recv()).await;
    offer
        .context("a job is not claimed")?
        .context("all workers ended")
}

type Offers = mpsc::UnboundedSender<(JobId, Instant)>;
type Offered = mpsc::UnboundedReceiver<(JobId, Instant)>;

/// Starts a worker for each token, and waits until all are welcome.
pub async fn connect(
    farm: &Farm,
    tokens: Vec<String>,
    offers: &Offers,
) -> Result<JoinSet<Result<()>>> {
    let places = Arc::new(Semaphore::new(CONNECTING));
    let (welcome, mut welcomed) = mpsc::unbounded_channel();
    let mut workers = JoinSet::new();
    let count = tokens.len();
    for (number, token) in tokens.into_iter().enumerate() {
        let place = Arc::clone(&places).acquire_owned().await?;
        let client = client(farm.url(), &token)?;
        let (offers, welcome) = (offers.clone(), welcome.clone());
        workers.spawn(async move {
            let mut socket = client.connect().await?;
            socket.send(&FromWorker::Hello(hello(number)?)).await?;
            match socket.next().await? {
                FromServer::Welcome { .. } => welcome.send(())?,
                other => bail!("no welcome: {other:?}"),
            }
            drop(place);
            work(socket, number, &offers).await
        });
    }
    for _ in 0..count {
        tokio::select! {
            _ = welcomed.recv() => {}
            Some(ended) = workers.join_next() => {
                ended??;
                bail!("a worker ended");
            }
        }
    }
    Ok(workers)
}

/// Renews, and takes what it is offered.
async fn work(mut socket: kiln_wire::client::Socket, number: usize, offers: &Offers) -> Result<()> {
    let every = Duration::from_secs(limits::RENEW_SECONDS);
    // Not all in one moment.
    let first = every.mul_f64(f64::from(u32::try_from(number % 5000)?) / 5000.0);
    let mut renewals = tokio::time::interval_at((Instant::now() + first).into(), every);
    let mut leases: Vec<Fence> = Vec::new();
    loop {
        tokio::select! {
            _ = renewals.tick() => {
                let leases = leases.clone();
                socket.send(&FromWorker::Renew { leases }).await?;
            }
            message = socket.next() => match message? {
                FromServer::Offer(offer) => {
                    leases.push(offer.fence);
                    offers.send((offer.job, Instant::now()))?;
                }
                FromServer::Cancel { fence } => leases.retain(|lease| *lease != fence),
                FromServer::Renewed { lost } if lost.is_empty() => {}
                other => bail!("a worker was told {other:?}"),
            },
        }
    }
}

fn hello(number: usize) -> Result<Hello> {
    let mut session = [0x5e; 16];
    session[..8].copy_from_slice(&u64::try_from(number)?.to_be_bytes());
    Ok(Hello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        session: SessionId::new(session),
        slots: 1,
        labels: BTreeMap::new(),
        state: State {
            capacity: 1,
            images: vec![OfferedImage {
                name: IMAGE.to_owned(),
                arch: std::env::consts::ARCH.to_owned(),
                digest: "d".repeat(64),
                default: true,
            }],
            mood: Mood::Ready,
            short_of: None,
        },
        leases: Vec::new(),
    })
}

/// Lets this process and those that it starts have so many open files.
fn allow_files(count: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|current| current >= count) {
        return Ok(());
    }
    let limit = Rlimit {
        current: Some(count),
        maximum: now.maximum.map(|maximum| maximum.max(count)),
    };
    setrlimit(Resource::Nofile, limit)
        .with_context(|| format!("{count} open files are needed; `ulimit -Hn {count}` allows them"))
}

/// The processor time of all of PostgreSQL's processes.
fn of_postgres(dir: &Path) -> Result<Duration> {
    let file = fs::read_to_string(dir.join("data/postmaster.pid"))?;
    let server = file.lines().next().context("a process's number")?.parse()?;
    let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children"))?;
    let mut all = farm::processor(server)?;
    for child in children.split_whitespace() {
        // One that ended meanwhile is its parent's.
        all += farm::processor(child.parse()?).unwrap_or_default();
    }
    Ok(all)
}
