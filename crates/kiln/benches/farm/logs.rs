//! How much of logs goes from workers into the server's storage.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Request;
use kiln_wire::client::{Client, empty, read};
use serde_json::json;

use crate::{
    Report,
    farm::{Farm, manifest},
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
const LOOK: Duration = Duration::from_millis(5);
/// How long all of it may take.
const LONG: Duration = Duration::from_mins(10);
/// The aims, in bytes and lines for each second.
const AIMS: (f64, f64) = (100e6, 1e6);

pub async fn measure() -> Result<Report> {
    let mut table = Table::new(
        "Logs, from the worker to the server's disk",
        &["tasks", "MB/s", "lines/s", "server s/GB", "worker s/GB", ""],
    );
    let mut figures = Vec::new();
    for tasks in TASKS {
        let farm = Farm::start(None, &[]).await?;
        let worker = farm.worker("one", tasks).await?;
        let mut rounds = Vec::new();
        let before = (farm.server().processor()?, worker.processor()?);
        for _ in 0..ROUNDS {
            rounds.push(round(&farm, tasks).await?);
        }
        let after = (farm.server().processor()?, worker.processor()?);
        let gigabytes = BYTES as f64 * ROUNDS as f64 / 1e9;
        let server = (after.0 - before.0).as_secs_f64() / gigabytes;
        let worker = (after.1 - before.1).as_secs_f64() / gigabytes;
        let bytes = median(&rounds);
        let lines = bytes / LINE as f64;
        table.row([
            tasks.to_string(),
            format!("{:.0}", bytes / 1e6),
            format!("{lines:.0}"),
            format!("{server:.1}"),
            format!("{worker:.1}"),
            if bytes >= AIMS.0 && lines >= AIMS.1 {
                "met"
            } else {
                "missed"
            }
            .to_owned(),
        ]);
        figures.push(json!({
            "storage": "directory",
            "tasks": tasks,
            "bytes_per_s": bytes,
            "lines_per_s": lines,
            "rounds_bytes_per_s": rounds,
            "server_processor_s_per_gb": server,
            "worker_processor_s_per_gb": worker,
        }));
    }
    table.note(format!(
        "{} MB in lines of {LINE} bytes, median of {ROUNDS}; s/GB: processor time for each GB",
        BYTES / 1_000_000
    ));
    Ok(Report {
        tables: vec![table],
        figures: figures.into(),
    })
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
