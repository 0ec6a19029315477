//! How much of logs goes from workers into the server's storage; and, beside that, how much
//! an S3 server takes when nothing is between it and the client.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Request;
use kiln_core::farm::limits;
use kiln_objects::testing::Raw;
use kiln_wire::client::{Client, empty, read};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    Report,
    engines::Engines,
    farm::{Farm, Process, manifest},
    table::{Table, median},
};

/// Bytes of all logs together, of which each line has [`LINE`].
const BYTES: u64 = 250_000_000;
const LINE: u64 = 40;
/// Tasks at once.
const TASKS: [u32; 2] = [1, 50];
/// Of each the median counts.
const ROUNDS: usize = 3;
/// How often the server's count is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long all of it may take.
const LONG: Duration = Duration::from_mins(10);
/// The aims, in bytes and lines for each second, on a directory.
const AIMS: (f64, f64) = (100e6, 1e6);

pub async fn measure() -> Result<Report> {
    let mut all = Vec::new();
    for tasks in TASKS {
        all.push(of(&Farm::start(None, &[]).await?, tasks, None).await?);
    }
    let engines = Engines::start()?;
    for tasks in TASKS {
        let raw = Raw::connect(&engines.bucket()?)?;
        all.push(of(&engines.farm(false).await?, tasks, Some(raw)).await?);
    }
    let mut table = Table::new(
        "Logs, from the worker to stored",
        &[
            "storage and tasks",
            "MB/s",
            "lines/s",
            "raw PUT MB/s",
            "server s/GB",
            "worker s/GB",
            "",
        ],
    );
    for seen in &all {
        table.row(seen.row());
    }
    table.note(format!(
        "{} MB in lines of {LINE} bytes, medians of {ROUNDS}; s/GB: processor time for each GB;",
        BYTES / 1_000_000
    ));
    table.note("S3: s3s-fs with signatures, and PostgreSQL; raw PUT: as many objects of 1 MiB at once as tasks,");
    table.note("by the same client, in alternate rounds; the aim is of a directory");
    Ok(Report {
        tables: vec![table],
        figures: all.iter().map(Seen::json).collect(),
    })
}

/// What was seen of a farm, by rounds.
struct Seen {
    tasks: u32,
    /// Bytes in a second.
    rates: Vec<f64>,
    /// The same of puts alone, on S3.
    raw: Vec<f64>,
    /// Processor seconds for each GB.
    server: Vec<f64>,
    worker: Vec<f64>,
}

impl Seen {
    fn storage(&self) -> &'static str {
        match self.raw.is_empty() {
            true => "directory",
            false => "S3",
        }
    }

    fn row(&self) -> [String; 7] {
        let bytes = median(&self.rates);
        let lines = bytes / LINE as f64;
        let met = bytes >= AIMS.0 && lines >= AIMS.1;
        let (raw, met) = match self.raw.is_empty() {
            true => ("–".to_owned(), if met { "met" } else { "missed" }),
            false => (format!("{:.0}", median(&self.raw) / 1e6), ""),
        };
        [
            format!("{}, {}", self.storage(), self.tasks),
            format!("{:.0}", bytes / 1e6),
            format!("{lines:.0}"),
            raw,
            format!("{:.1}", median(&self.server)),
            format!("{:.1}", median(&self.worker)),
            met.to_owned(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "storage": self.storage(),
            "tasks": self.tasks,
            "bytes_per_s": self.rates,
            "raw_put_bytes_per_s": self.raw,
            "server_processor_s_per_gb": self.server,
            "worker_processor_s_per_gb": self.worker,
        })
    }
}

async fn of(farm: &Farm, tasks: u32, raw: Option<Raw>) -> Result<Seen> {
    let worker = farm.worker("one", tasks).await?;
    let raw = raw.map(Arc::new);
    let mut seen = Seen {
        tasks,
        rates: Vec::new(),
        raw: Vec::new(),
        server: Vec::new(),
        worker: Vec::new(),
    };
    for number in 0..ROUNDS {
        let before = (farm.server().processor()?, worker.processor()?);
        seen.rates.push(round(farm, tasks).await?);
        let for_each_gb = |process: &Process, before: Duration| -> Result<f64> {
            let took = process.processor()? - before;
            Ok(took.as_secs_f64() * 1e9 / BYTES as f64)
        };
        seen.server.push(for_each_gb(farm.server(), before.0)?);
        seen.worker.push(for_each_gb(&worker, before.1)?);
        if let Some(raw) = &raw {
            seen.raw.push(puts(raw, tasks, number).await?);
        }
    }
    Ok(seen)
}

/// Bytes stored in a second, from the first that are until all are.
async fn round(farm: &Farm, tasks: u32) -> Result<f64> {
    let client = farm.client()?;
    let each = BYTES / u64::from(tasks);
    let width = usize::try_from(LINE)? - 1;
    // One process that writes, and a shell that says nothing itself.
    let script = format!("set +x; yes '{}' | head -c {each}", "x".repeat(width));
    let manifest = manifest(&script);
    let already = stored(&client).await?;
    let mut jobs = Vec::new();
    for _ in 0..tasks {
        jobs.push(farm.submit(&client, &manifest).await?);
    }
    let (mut first, until) = (None, Instant::now() + LONG);
    // Before it the server's and the shell's own lines are stored, some hundred bytes a job.
    let own = u64::from(tasks) * 4096;
    let (first, last) = loop {
        let bytes = stored(&client).await? - already;
        let now = Instant::now();
        if bytes > own {
            first.get_or_insert((now, bytes));
        }
        if let Some(first) = first.filter(|_| bytes >= each * u64::from(tasks)) {
            break (first, (now, bytes));
        }
        ensure!(now < until, "{bytes} bytes were stored and no more");
        tokio::time::sleep(LOOK).await;
    };
    for job in jobs {
        farm.succeeds(&client, job, LONG).await?;
    }
    let seconds = last.0.duration_since(first.0).as_secs_f64();
    Ok((last.1 - first.1) as f64 / seconds)
}

/// Bytes of logs that the server has stored since its start.
async fn stored(client: &Client) -> Result<u64> {
    let answer = client.send(Request::get("/metrics").body(empty())?).await?;
    let text = read(answer.into_body(), 1 << 20).await?;
    let text = std::str::from_utf8(&text)?;
    let line = text
        .lines()
        .find_map(|line| line.split_once("log_bytes_total "));
    let (_, count) = line.context("the server counts no bytes of logs")?;
    Ok(count.trim().parse()?)
}

/// Bytes in a second that are put as objects as long as the longest appends, so many at once.
async fn puts(raw: &Arc<Raw>, at_once: u32, round: usize) -> Result<f64> {
    let object = Bytes::from(vec![b'x'; limits::APPEND]);
    let count = BYTES.div_ceil(limits::APPEND as u64);
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut all = JoinSet::new();
    for _ in 0..at_once {
        let (raw, next, object) = (Arc::clone(raw), Arc::clone(&next), object.clone());
        all.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(());
                }
                let key = format!("raw/{round}/{number}");
                raw.put(&key, object.clone()).await?;
            }
        });
    }
    while let Some(done) = all.join_next().await {
        done??;
    }
    let bytes = count * limits::APPEND as u64;
    Ok(bytes as f64 / began.elapsed().as_secs_f64())
}
