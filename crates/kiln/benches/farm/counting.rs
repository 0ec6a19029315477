//! Counts of rows in PostgreSQL, asked for again and again over one connection.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kiln_store::testing::Postgres;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(20);
/// How long a count may take to be reached.
const LONG: Duration = Duration::from_mins(10);

/// A `psql` that is asked.
pub struct Counting {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _psql: Child,
}

impl Counting {
    /// One that looks into the database of this URL.
    pub fn start(postgres: &Postgres, url: &str) -> Result<Self> {
        let database = url.split(['/', '?']).nth(3).unwrap_or_default();
        let mut psql = Command::new(Postgres::program("psql")?)
            .args(["-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-U", "kiln"])
            .args(["-d", database, "-h"])
            .arg(postgres.directory())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self {
            input: psql.stdin.take().context("a pipe")?,
            output: BufReader::new(psql.stdout.take().context("a pipe")?),
            _psql: psql,
        })
    }

    /// Waits until so many have ended well. The query says how many, and how many have not.
    /// What else ended since is an error. Gives the time since then.
    pub async fn wait(&mut self, query: &str, count: usize, since: Instant) -> Result<Duration> {
        loop {
            self.input.write_all(query.as_bytes()).await?;
            self.input.write_all(b"\n").await?;
            let mut line = String::new();
            self.output.read_line(&mut line).await?;
            let counts = line.trim().split_once(' ');
            let (good, bad) = counts.context("psql says no two numbers; see above")?;
            let good: usize = good.parse()?;
            ensure!(bad == "0", "{bad} did not end well");
            if good >= count {
                return Ok(since.elapsed());
            }
            ensure!(
                since.elapsed() < LONG,
                "{good} of {count} ended, and no more"
            );
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// How many that are in a second.
pub fn rate(count: usize, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "there are not that many")]
    let count = count as f64;
    count / time.as_secs_f64()
}
