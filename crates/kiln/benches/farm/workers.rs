//! Many workers on one server, simulated in this process by the real protocol: what they
//! cost, and how soon a job is claimed then.

#![expect(clippy::print_stdout, reason = "it takes minutes")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use http::{Request, header};
use kiln_core::{
    farm::{Fence, JobId, OfferedImage, SessionId, limits},
    job::JobStatus,
};
use kiln_store::{
    Store,
    testing::{self, Postgres},
};
use kiln_wire::{
    client::{Client, full, read},
    message::{FromServer, FromWorker, Hello, Mood, PROTOCOL, State},
    report::{End, SESSION_HEADER},
};
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    Report,
    farm::{Farm, IMAGE, client, manifest, of_postgres},
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
const PAUSE: Duration = Duration::from_millis(40);
/// How many there are at least: it is watched longer, where that takes longer.
const CLAIMS: usize = 1000;
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
            "n",
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
                seen.claims.len().to_string(),
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
    let (offers, mut offered) = mpsc::unbounded_channel();
    let began = Instant::now();
    let mut workers = connect(&farm, tokens, &offers).await?;
    let connected = began.elapsed();
    let people = farm.client()?;
    let manifest = manifest("true");
    for _ in 0..count / BUSY {
        farm.submit(&people, &manifest).await?;
    }
    let mut busy = Vec::new();
    for _ in 0..count / BUSY {
        busy.push(next(&mut offered).await?);
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
    while began.elapsed() < WATCH || claims.len() < CLAIMS {
        claims.push(claim(&farm, &people, &mut offered).await?);
        tokio::time::sleep(PAUSE).await;
    }
    if let Some(ended) = workers.try_join_next() {
        ended??;
        bail!("a worker ended");
    }
    let running = store.counts().await?.running;
    ensure!(
        running == u64::try_from(busy.len())?,
        "{running} jobs run where {} should",
        busy.len()
    );
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

/// A job's claim on a farm with a free slot, from the submission until its worker has been
/// offered it, in milliseconds. The job has ended then.
pub async fn claim(farm: &Farm, people: &Client, offered: &mut Offered) -> Result<f64> {
    let at = Instant::now();
    let job = farm.submit(people, &manifest("true")).await?;
    let claim = next(offered).await?;
    ensure!(claim.job == job, "another job was offered");
    claim.end().await?;
    Ok(claim.when.duration_since(at).as_secs_f64() * 1e3)
}

/// The next offer.
async fn next(offered: &mut Offered) -> Result<Claim> {
    let offer = tokio::time::timeout(LONG, offered.recv()).await;
    offer
        .context("a job is not claimed")?
        .context("all workers ended")
}

/// What a worker was offered.
pub struct Claim {
    job: JobId,
    when: Instant,
    fence: Fence,
    session: SessionId,
    client: Arc<Client>,
}

impl Claim {
    /// Begins and ends the job, as its worker.
    async fn end(&self) -> Result<()> {
        let end = End {
            status: JobStatus::Success,
            reason: None,
            tasks: Vec::new(),
        };
        self.report("begun", Vec::new()).await?;
        self.report("end", serde_json::to_vec(&end)?).await
    }

    async fn report(&self, what: &str, body: Vec<u8>) -> Result<()> {
        let request = Request::post(format!("/worker/lease/{}/{what}", self.fence.0))
            .header(SESSION_HEADER, self.session.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .body(full(body))?;
        let answer = self.client.send(request).await?;
        let status = answer.status();
        ensure!(status.is_success(), "`{what}` is answered by {status}");
        read(answer.into_body(), 1 << 10).await?;
        Ok(())
    }
}

type Offers = mpsc::UnboundedSender<Claim>;
type Offered = mpsc::UnboundedReceiver<Claim>;

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
        let client = Arc::new(client(farm.url(), &token)?);
        let (offers, welcome) = (offers.clone(), welcome.clone());
        workers.spawn(async move {
            let mut socket = client.connect().await?;
            socket.send(&FromWorker::Hello(hello(number)?)).await?;
            match socket.next().await? {
                FromServer::Welcome { .. } => welcome.send(())?,
                other => bail!("no welcome: {other:?}"),
            }
            drop(place);
            work(socket, &client, number, &offers).await
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
async fn work(
    mut socket: kiln_wire::client::Socket,
    client: &Arc<Client>,
    number: usize,
    offers: &Offers,
) -> Result<()> {
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
                    offers.send(Claim {
                        job: offer.job,
                        when: Instant::now(),
                        fence: offer.fence,
                        session: session(number)?,
                        client: Arc::clone(client),
                    })?;
                }
                FromServer::Cancel { fence } => leases.retain(|lease| *lease != fence),
                // Of a job that has ended; that no other lease is lost is looked at later.
                FromServer::Renewed { lost } => leases.retain(|lease| !lost.contains(lease)),
                other => bail!("a worker was told {other:?}"),
            },
        }
    }
}

fn session(number: usize) -> Result<SessionId> {
    let mut session = [0x5e; 16];
    session[..8].copy_from_slice(&u64::try_from(number)?.to_be_bytes());
    Ok(SessionId::new(session))
}

fn hello(number: usize) -> Result<Hello> {
    Ok(Hello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        session: session(number)?,
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
