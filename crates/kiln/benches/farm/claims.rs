//! Claims, with a long queue of many shares: how many in a second, and how soon a slot that
//! became free has its next job. At the store, whose passes decide it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use kiln_core::{
    farm::{Labels, OfferedImage, Requirements, SessionId, UserId, Visibility, WorkerId, limits},
    job::JobStatus,
};
use kiln_store::{
    Config, Store,
    model::{Hello, LeaseKey, Mood, NewJob, Renewal, SessionState, TokenHash},
    testing::{self, Postgres},
};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};

use crate::{
    Report,
    farm::{Farm, IMAGE, manifest},
    table::{Table, percentile},
    workers,
};

/// Jobs that wait.
const QUEUED: u64 = 100_000;
/// Whose they are.
const SHARES: u64 = 1_000;
/// Workers, with one slot each, and the milliseconds that a job of theirs takes in the mean:
/// so many that a thousand claims and more come in [`LIFE`].
const WORKERS: [(usize, u64); 3] = [(1, 20), (16, 300), (256, 1000)];
/// Jobs that are submitted at once.
const SUBMITTING: u64 = 64;
/// How long a farm is watched whose jobs take their time, and one whose take none.
const LIFE: Duration = Duration::from_secs(30);
const RUSH: Duration = Duration::from_secs(5);
/// Submissions to a farm that has nothing else to do, and its workers.
const IDLE: usize = 1000;
const IDLE_WORKERS: usize = 4;
/// The aim, in milliseconds.
const AIM: f64 = 10.0;

pub async fn measure() -> Result<Report> {
    let mut table = Table::new(
        "Claims with 100,000 jobs of 1,000 shares queued",
        &[
            "database and workers",
            "claims/s at most",
            "left",
            "claims/s in life",
            "n",
            "p50 ms",
            "p99 ms",
            "",
        ],
    );
    let mut figures = Vec::new();
    for engine in ["SQLite", "PostgreSQL"] {
        let postgres = match engine {
            "PostgreSQL" => Some(Postgres::start_durable()?),
            _ => None,
        };
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let url = match &postgres {
            Some(postgres) => postgres.database()?,
            None => format!("sqlite://{}/kiln.db", dir.path().display()),
        };
        let store = Store::open(&Config { url, migrate: true }).await?;
        let owner = store.add_user("ada", "ada@example.org", false).await?.id;
        for (count, takes) in WORKERS {
            fill(&store, owner).await?;
            let life = watch(&store, count, LIFE, takes).await?;
            fill(&store, owner).await?;
            let rush = watch(&store, count, RUSH, 0).await?;
            let p99 = percentile(&life.latencies, 99);
            table.row([
                format!("{engine}, {count}"),
                format!("{:.0}", rush.rate()),
                rush.left.to_string(),
                format!("{:.0}", life.rate()),
                life.latencies.len().to_string(),
                format!("{:.1}", percentile(&life.latencies, 50)),
                format!("{p99:.1}"),
                if p99 <= AIM { "met" } else { "missed" }.to_owned(),
            ]);
            figures.push(json!({
                "engine": engine,
                "workers": count,
                "claims_per_second": rush.rate(),
                "life": life.json(),
                "rush": rush.json(),
            }));
        }
    }
    let takes = WORKERS.map(|(_, takes)| takes);
    table.note(format!(
        "in life: jobs take {takes:?} ms in the mean; at most: they take no time, and so many are left in the queue;"
    ));
    table.note("ms: from the commit that ends a job until its slot's next attempt is committed, in life; n: of so many;");
    table.note("nobody else uses the database meanwhile");
    let (idle, milliseconds) = idle().await?;
    Ok(Report {
        tables: vec![table, idle],
        figures: json!({ "claims": figures, "idle": milliseconds }),
    })
}

/// Submits until so many wait.
async fn fill(store: &Store, owner: UserId) -> Result<()> {
    let missing = QUEUED.saturating_sub(store.counts().await?.queued);
    let next = Arc::new(AtomicU64::new(0));
    let mut all = JoinSet::new();
    for _ in 0..SUBMITTING {
        let (store, next) = (store.clone(), Arc::clone(&next));
        all.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= missing {
                    return anyhow::Ok(());
                }
                store.submit(&job(owner, number % SHARES)?).await?;
            }
        });
    }
    while let Some(done) = all.join_next().await {
        done??;
    }
    Ok(())
}

fn job(owner: UserId, share: u64) -> Result<NewJob> {
    Ok(NewJob {
        owner,
        share: Some(format!("share {share}")),
        priority: 0,
        manifest: manifest("true"),
        requirements: Requirements::new::<&str>(IMAGE.to_owned(), None, &[])?,
        tasks: vec!["it".to_owned()],
        note: None,
        tags: Vec::new(),
        visibility: Visibility::Unlisted,
        secrets: false,
        execute: true,
        deadline_seconds: 3600,
        idempotency: None,
    })
}

/// What was seen of a farm.
struct Seen {
    passed: Duration,
    /// From a slot's becoming free to its next claim, in milliseconds.
    latencies: Vec<f64>,
    /// Jobs that wait at the end.
    left: u64,
}

impl Seen {
    fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "there are not that many")]
        let count = self.latencies.len() as f64;
        count / self.passed.as_secs_f64()
    }

    fn json(&self) -> Value {
        json!({
            "seconds": self.passed.as_secs_f64(),
            "claims": self.latencies.len(),
            "left_in_queue": self.left,
            "p50_ms": percentile(&self.latencies, 50),
            "p99_ms": percentile(&self.latencies, 99),
        })
    }
}

/// A farm's passes, and who waits for them.
#[derive(Default)]
struct Passes {
    wanted: Notify,
    over: AtomicBool,
    /// Since when each session has a free slot.
    free: Mutex<HashMap<SessionId, VecDeque<Instant>>>,
    latencies: Mutex<Vec<f64>>,
    claimed: Mutex<HashMap<SessionId, mpsc::UnboundedSender<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Passes {
    /// As the server's: one after another, when hinted.
    async fn run(&self, store: &Store) -> Result<()> {
        while !self.over.load(Ordering::Acquire) {
            self.wanted.notified().await;
            let mut more = true;
            while more && !self.over.load(Ordering::Acquire) {
                let changed = store.assign().await?;
                let now = Instant::now();
                more = changed.assign;
                for session in &changed.sessions {
                    let since = lock(&self.free)
                        .get_mut(session)
                        .and_then(VecDeque::pop_front);
                    if let Some(since) = since {
                        let passed = now.duration_since(since).as_secs_f64() * 1e3;
                        lock(&self.latencies).push(passed);
                    }
                    if let Some(claimed) = lock(&self.claimed).get(session) {
                        // A worker that has stopped takes no more.
                        let _ = claimed.send(());
                    }
                }
            }
        }
        Ok(())
    }

    fn is_free(&self, session: &SessionId) {
        let mut free = lock(&self.free);
        free.entry(session.clone())
            .or_default()
            .push_back(Instant::now());
        self.wanted.notify_one();
    }
}

/// Lets so many workers work for so long; a job takes so many milliseconds in the mean.
async fn watch(store: &Store, count: usize, time: Duration, takes: u64) -> Result<Seen> {
    let passes = Arc::new(Passes::default());
    let mut all = JoinSet::new();
    let mut renewals = Vec::new();
    for _ in 0..count {
        let (worker, session) = hello(store).await?;
        renewals.push(Renewal {
            session: session.clone(),
            token: None,
            leases: Vec::new(),
        });
        let (claimed, claims) = mpsc::unbounded_channel();
        lock(&passes.claimed).insert(session.clone(), claimed);
        passes.is_free(&session);
        let (store, passes) = (store.clone(), Arc::clone(&passes));
        all.spawn(async move { work(&store, &passes, (worker, session), claims, takes).await });
    }
    let running = {
        let (store, passes) = (store.clone(), Arc::clone(&passes));
        tokio::spawn(async move { passes.run(&store).await })
    };
    let renewing = tokio::spawn(renew(store.clone(), renewals));
    // What all get at once when they come is no latency of a farm that lives.
    tokio::time::sleep(Duration::from_secs(2)).await;
    lock(&passes.latencies).clear();
    let began = Instant::now();
    tokio::time::sleep(time).await;
    let (latencies, passed) = (lock(&passes.latencies).clone(), began.elapsed());
    renewing.abort();
    passes.over.store(true, Ordering::Release);
    passes.wanted.notify_one();
    running.await??;
    // Nobody is given anything any more.
    lock(&passes.claimed).clear();
    while let Some(done) = all.join_next().await {
        done??;
    }
    let left = store.counts().await?.queued;
    Ok(Seen {
        passed,
        latencies,
        left,
    })
}

/// Lets sessions be here, as a server does. No job takes as long as a lease.
async fn renew(store: Store, renewals: Vec<Renewal>) -> Result<()> {
    loop {
        tokio::time::sleep(Duration::from_secs(limits::RENEW_SECONDS)).await;
        store.renew_many(&renewals).await?;
    }
}

/// A worker that is here for the first time.
async fn hello(store: &Store) -> Result<(WorkerId, SessionId)> {
    let mut random = [0; 32];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let (mut name, mut session) = (String::new(), [0; 16]);
    for byte in &random[..8] {
        name.push_str(&format!("{byte:02x}"));
    }
    session.copy_from_slice(&random[..16]);
    let worker = store.add_worker(&name, TokenHash(random)).await?.id;
    let hello = Hello {
        session: SessionId::new(session),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        slots: 1,
        state: SessionState {
            capacity: 1,
            labels: Labels {
                images: vec![OfferedImage {
                    name: IMAGE.to_owned(),
                    arch: std::env::consts::ARCH.to_owned(),
                    digest: "d".repeat(64),
                    default: true,
                }],
                labels: BTreeMap::new(),
            },
            mood: Mood::Ready,
            short_of: None,
        },
        leases: Vec::new(),
    };
    store.hello(worker, &hello).await?;
    Ok((worker, hello.session))
}

/// Takes what it is given, begins it and ends it.
async fn work(
    store: &Store,
    passes: &Passes,
    (worker, session): (WorkerId, SessionId),
    mut claims: mpsc::UnboundedReceiver<()>,
    takes: u64,
) -> Result<()> {
    let mut number = u64::from(session.as_str().as_bytes()[0]);
    while claims.recv().await.is_some() {
        let leases = store.leases(&session).await?;
        let (fence, _) = *leases.first().context("a lease")?;
        let key = LeaseKey {
            worker,
            session: &session,
            fence,
        };
        store.begun(key).await?;
        if takes > 0 {
            // From half of it to one and a half, spread without a random source: it repeats
            // after 1009 jobs.
            number = (number * 7 + 13) % 1009;
            let part = f64::from(u32::try_from(504 + number)?) / 1008.0;
            tokio::time::sleep(Duration::from_millis(takes).mul_f64(part)).await;
        }
        store.end(key, JobStatus::Success, None, &[]).await?;
        passes.is_free(&session);
    }
    // What it was given last, unheard.
    for (fence, _) in store.leases(&session).await? {
        let key = LeaseKey {
            worker,
            session: &session,
            fence,
        };
        store.end(key, JobStatus::Success, None, &[]).await?;
    }
    Ok(store.end_session(&session).await?)
}

/// From a submission over HTTP to the offer at a worker's socket, where nothing else
/// happens.
async fn idle() -> Result<(Table, Value)> {
    let mut table = Table::new(
        "From a submission to its offer, on an idle farm over HTTP",
        &["database", "n", "p50 ms", "p99 ms"],
    );
    let mut figures = Vec::new();
    for engine in ["SQLite", "PostgreSQL"] {
        let postgres = match engine {
            "PostgreSQL" => Some(Postgres::start_durable()?),
            _ => None,
        };
        let database = postgres.as_ref().map(Postgres::database).transpose()?;
        let farm = Farm::start(database.as_deref(), &[]).await?;
        let config = Config {
            url: farm.store_url().to_owned(),
            migrate: false,
        };
        let store = Store::open(&config).await?;
        let tokens = testing::add_workers(&store, IDLE_WORKERS).await?;
        let (offers, mut offered) = mpsc::unbounded_channel();
        let _workers = workers::connect(&farm, tokens, &offers).await?;
        let people = farm.client()?;
        let mut milliseconds = Vec::new();
        for _ in 0..IDLE {
            milliseconds.push(workers::claim(&farm, &people, &mut offered).await?);
        }
        let (p50, p99) = (percentile(&milliseconds, 50), percentile(&milliseconds, 99));
        table.row([
            engine.to_owned(),
            milliseconds.len().to_string(),
            format!("{p50:.1}"),
            format!("{p99:.1}"),
        ]);
        figures.push(json!({ "engine": engine, "n": IDLE, "p50_ms": p50, "p99_ms": p99 }));
    }
    Ok((table, figures.into()))
}
