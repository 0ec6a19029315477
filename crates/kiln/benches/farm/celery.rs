//! Empty tasks through Celery on a Redis of its own, from as many processes that submit and
//! as many that run them as one likes.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use kiln_store::testing::Postgres;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, Command},
};

use crate::{
    counting::{Counting, rate},
    farm::terminate,
};

/// What is installed from PyPI, in a place of its own.
pub const PACKAGES: [&str; 3] = [
    "celery[redis]==5.7.0",
    "redis==6.4.0",
    "psycopg[binary]==3.3.9",
];
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/farm/celery_bench.py");
/// Tasks before a round, so that each process of the worker has had something to do.
const WARM: usize = 200;

/// How many processes submit tasks, and how many run them.
#[derive(Debug, Clone, Copy)]
pub struct Processes {
    pub producers: usize,
    pub workers: usize,
}

/// Celery with a Redis of its own.
pub struct Celery<'a> {
    postgres: &'a Postgres,
    url: String,
    counting: Counting,
    python: PathBuf,
    dir: tempfile::TempDir,
    _redis: Child,
}

impl<'a> Celery<'a> {
    pub async fn start(postgres: &'a Postgres) -> Result<Self> {
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
            counting: Counting::start(postgres, &url)?,
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
        let directory = self.postgres.directory().display();
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
                format!("host={directory} dbname={database} user=kiln"),
            )
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Queues so many tasks and waits until all have run; how many that were in a second.
    /// All processes are there before, have imported what they need, and are connected.
    pub async fn round(&mut self, processes: Processes, count: usize) -> Result<f64> {
        self.postgres
            .sql(&self.url, "TRUNCATE celery_jobs, celery_ends;")?;
        let mut worker = self.worker(processes.workers)?;
        let mut warming = self.producer(WARM).await?;
        warming.begin().await?;
        warming.ended().await?;
        let each = count / processes.producers;
        let mut producers = Vec::new();
        for _ in 0..processes.producers {
            producers.push(self.producer(each).await?);
        }
        // Each producer has queued one by itself, to be connected.
        let warm = WARM + 1 + producers.len();
        self.counting.wait(DONE, warm, Instant::now()).await?;
        let (count, began) = (each * producers.len(), Instant::now());
        for producer in &mut producers {
            producer.begin().await?;
        }
        let time = self.counting.wait(DONE, warm + count, began).await?;
        for producer in producers {
            producer.ended().await?;
        }
        terminate(&worker)?;
        worker.wait().await?;
        Ok(rate(count, time))
    }

    fn worker(&self, processes: usize) -> Result<Child> {
        let words = ["-m", "celery", "-A", "celery_bench", "worker"];
        let more = [
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ];
        let worker = self
            .command(&words)
            .args(["--pool", "prefork", "--loglevel", "ERROR"])
            .args(["--concurrency", &processes.to_string()])
            .args(more)
            .stdout(Stdio::null())
            .spawn()?;
        Ok(worker)
    }

    /// One that waits for its word.
    async fn producer(&self, count: usize) -> Result<Producer> {
        let mut child = self
            .command(&[SCRIPT, &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("a pipe")?;
        let mut said = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut line = String::new();
        said.read_line(&mut line).await?;
        ensure!(
            line == "ready\n",
            "Celery's client says `{line}`; see above"
        );
        Ok(Producer { child, input })
    }
}

/// How many tasks have ended, and none of them badly.
const DONE: &str = "SELECT count(*) || ' 0' FROM celery_ends;";

struct Producer {
    child: Child,
    input: ChildStdin,
}

impl Producer {
    async fn begin(&mut self) -> Result<()> {
        self.input.write_all(b"now\n").await?;
        Ok(())
    }

    async fn ended(mut self) -> Result<()> {
        let ended = self.child.wait().await?;
        ensure!(ended.success(), "Celery's tasks can't be queued; see above");
        Ok(())
    }
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
