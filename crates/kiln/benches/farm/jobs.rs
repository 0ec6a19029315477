//! Null jobs, from the first submission over HTTP to the last end; and beside them, in
//! alternate rounds on the same PostgreSQL, as many empty tasks through Celery on Redis.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kiln_store::{Config, Store, testing::Postgres};
use serde_json::json;
use tokio::{
    process::{Child, Command},
    task::JoinSet,
};

use crate::{
    Report,
    farm::{Farm, client, manifest},
    table::{Table, ends, median},
};

/// Jobs of a round, and tasks of one.
const JOBS: usize = 4_000;
/// Rounds of each.
const ROUNDS: usize = 3;
/// Connections that submit, a user each.
const CONNECTIONS: usize = 16;
/// Workers, and slots of each.
const WORKERS: usize = 2;
const SLOTS: u32 = 64;
/// Processes of Celery's worker that are tried.
const CONCURRENCIES: [usize; 3] = [2, 4, 8];
/// How often it is looked whether all have ended.
const LOOK: Duration = Duration::from_millis(20);
/// How long a round may take.
const LONG: Duration = Duration::from_mins(10);
/// The aims: jobs in a second, and times Celery's.
const AIM: f64 = 2_000.0;
const TIMES: f64 = 3.0;
/// What is installed from PyPI, in a place of its own.
const PACKAGES: [&str; 3] = ["celery==5.7.0", "redis==6.4.0", "psycopg[binary]==3.3.9"];
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/farm/celery_bench.py");

pub async fn measure() -> Result<Report> {
    let postgres = Postgres::start_durable()?;
    let celery = Celery::start(&postgres).await?;
    let (mut concurrency, mut best) = (0, 0.0);
    for tried in CONCURRENCIES {
        let rate = celery.round(tried, JOBS / 2).await?;
        if rate > best {
            (concurrency, best) = (tried, rate);
        }
    }
    let database = postgres.database()?;
    let farm = Farm::start(Some(&database), &[]).await?;
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        workers.push(farm.worker(&format!("worker{number}"), SLOTS).await?);
    }
    let store = Store::open(&Config {
        url: database,
        migrate: false,
    })
    .await?;
    let mut tokens = Vec::new();
    for number in 0..CONNECTIONS {
        tokens.push(farm.user(&format!("user{number}")).await?);
    }
    // Connections and statements are there after that.
    round(&farm, &store, &tokens, JOBS / 4).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut processor = Vec::new();
    for _ in 0..ROUNDS {
        let before = farm.server().processor()?;
        ours.push(round(&farm, &store, &tokens, JOBS).await?);
        let server = (farm.server().processor()? - before).as_secs_f64();
        processor.push(server * 1e3 / f64::from(u32::try_from(JOBS)?));
        theirs.push(celery.round(concurrency, JOBS).await?);
    }
    Ok(report(&ours, &theirs, &processor, concurrency))
}

/// The rates of both, round by round, and what the server took for a job, in milliseconds.
fn report(ours: &[f64], theirs: &[f64], processor: &[f64], concurrency: usize) -> Report {
    let mut table = Table::new(
        "Null jobs in a second, end to end",
        &["what", "median", "least", "most", "aim", ""],
    );
    let times = median(ours) / median(theirs);
    for (what, rates, aim) in [("kiln", ours, Some(AIM)), ("Celery", theirs, None)] {
        let (least, most) = ends(rates);
        table.row([
            what.to_owned(),
            format!("{:.0}", median(rates)),
            format!("{least:.0}"),
            format!("{most:.0}"),
            aim.map_or(String::new(), |aim| format!("{aim:.0}")),
            aim.map_or(String::new(), |aim| met(median(rates) >= aim)),
        ]);
    }
    table.row([
        "times Celery's".to_owned(),
        format!("{times:.1}"),
        String::new(),
        String::new(),
        format!("{TIMES:.0}"),
        met(times >= TIMES),
    ]);
    table.note(format!(
        "kiln: {CONNECTIONS} connections submit, {WORKERS} workers with {SLOTS} slots on the dummy machine run one task each;"
    ));
    table.note(format!(
        "its server takes {:.2} ms of processor time for a job;",
        median(processor)
    ));
    table.note(format!(
        "Celery: {concurrency} processes, the best of {CONCURRENCIES:?}; a task writes two rows in one transaction,"
    ));
    table.note(
        "where a job of kiln's has six commits at least; both on one PostgreSQL with fsync on",
    );
    Report {
        tables: vec![table],
        figures: json!({
            "kiln_jobs_per_second": ours,
            "celery_tasks_per_second": theirs,
            "celery_concurrency": concurrency,
            "times": times,
            "server_ms_per_job": processor,
        }),
    }
}

fn met(is: bool) -> String {
    if is { "met" } else { "missed" }.to_owned()
}

#[expect(clippy::cast_precision_loss, reason = "there are not that many")]
fn rate(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}

/// Submits so many jobs and waits until all have ended; how many that were in a second.
async fn round(farm: &Farm, store: &Store, tokens: &[String], count: usize) -> Result<f64> {
    let ended = store.counts().await?.submitted + u64::try_from(count)?;
    let manifest: Arc<str> = manifest("true").into();
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut all = JoinSet::new();
    for token in tokens {
        let client = client(farm.url(), token)?;
        let (next, manifest) = (Arc::clone(&next), Arc::clone(&manifest));
        all.spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < count {
                crate::farm::submit(&client, &manifest).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = all.join_next().await {
        done??;
    }
    loop {
        let counts = store.counts().await?;
        if counts.submitted >= ended && counts.queued + counts.running == 0 {
            return Ok(rate(count, began));
        }
        ensure!(began.elapsed() < LONG, "the jobs do not end: {counts:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Celery with a Redis of its own.
struct Celery<'a> {
    postgres: &'a Postgres,
    url: String,
    python: PathBuf,
    dir: tempfile::TempDir,
    _redis: Child,
}

impl<'a> Celery<'a> {
    async fn start(postgres: &'a Postgres) -> Result<Self> {
        let python = venv().await?;
        let url = postgres.database()?;
        postgres.sql(
            &url,
            "CREATE TABLE celery_jobs (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, status TEXT NOT NULL);
             CREATE TABLE celery_ends (job BIGINT PRIMARY KEY REFERENCES celery_jobs (id));",
        )?;
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let redis = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(dir.path().join("redis"))
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("redis-server; `scripts/setup tests` installs it")?;
        Ok(Self {
            postgres,
            url,
            python,
            dir,
            _redis: redis,
        })
    }

    fn command(&self, words: &[&str]) -> Command {
        let socket = self.dir.path().join("redis");
        // What libpq calls a URL of this is not quite what ours is.
        let database = self.url.split(['/', '?']).nth(3).unwrap_or_default();
        let mut command = Command::new(&self.python);
        command
            .args(words)
            .current_dir(self.dir.path())
            .env(
                "PYTHONPATH",
                Path::new(SCRIPT).parent().unwrap_or(Path::new("/")),
            )
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("BROKER", format!("redis+socket://{}", socket.display()))
            .env(
                "DATABASE",
                format!(
                    "host={} dbname={database} user=kiln",
                    self.postgres.directory().display()
                ),
            )
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Queues so many tasks and waits until all have run; how many that were in a second.
    /// The worker's processes are there before.
    async fn round(&self, concurrency: usize, count: usize) -> Result<f64> {
        let done = || -> Result<usize> {
            let count = self.postgres.sql(
                &self.url,
                "COPY (SELECT COUNT(*) FROM celery_ends) TO STDOUT;",
            )?;
            Ok(count.trim().parse()?)
        };
        let concurrency = concurrency.to_string();
        let words = [
            "-m",
            "celery",
            "-A",
            "celery_bench",
            "worker",
            "--pool",
            "prefork",
        ];
        let mut worker = self
            .command(&words)
            .args(["--concurrency", &concurrency, "--loglevel", "ERROR"])
            .args([
                "--without-gossip",
                "--without-mingle",
                "--without-heartbeat",
            ])
            .stdout(Stdio::null())
            .spawn()?;
        // It is warm when each of its processes has had something to do.
        let warm = done()? + 200;
        self.send(200).await?;
        wait(&done, warm).await?;
        let (all, began) = (warm + count, Instant::now());
        let (sent, ran) = tokio::join!(self.send(count), wait(&done, all));
        sent?;
        ran?;
        let rate = rate(count, began);
        if let Some(pid) = worker.id().and_then(|pid| i32::try_from(pid).ok()) {
            let pid = rustix::process::Pid::from_raw(pid).context("a process's number")?;
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        worker.wait().await?;
        Ok(rate)
    }

    async fn send(&self, count: usize) -> Result<()> {
        let count = count.to_string();
        let sent = self.command(&[SCRIPT, &count]).status().await?;
        ensure!(sent.success(), "Celery's tasks can't be queued; see above");
        Ok(())
    }
}

async fn wait(done: &impl Fn() -> Result<usize>, count: usize) -> Result<()> {
    let began = Instant::now();
    while done()? < count {
        ensure!(began.elapsed() < LONG, "Celery's tasks do not end");
        // Each look is a process: not so often that it takes from what is measured.
        tokio::time::sleep(5 * LOOK).await;
    }
    Ok(())
}

/// A Python with [`PACKAGES`], made once.
async fn venv() -> Result<PathBuf> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("celery");
    let python = dir.join("bin/python");
    let stamp = dir.join("installed");
    if std::fs::read_to_string(&stamp).is_ok_and(|text| text == PACKAGES.join(" ")) {
        return Ok(python);
    }
    let made = Command::new("python3")
        .args(["-m", "venv"])
        .arg(&dir)
        .status()
        .await?;
    ensure!(made.success(), "python3 -m venv failed; see above");
    let installed = Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args(PACKAGES)
        .status()
        .await?;
    ensure!(installed.success(), "pip install failed; see above");
    std::fs::write(stamp, PACKAGES.join(" "))?;
    Ok(python)
}
