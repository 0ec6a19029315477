//! What an idle server and an idle worker have in memory.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{
    Report,
    engines::Engines,
    farm::{Farm, manifest},
    table::Table,
};

/// Jobs between the two looks.
const JOBS: usize = 1000;
/// Jobs at once.
const SLOTS: u32 = 8;
/// How long both are left alone before they are looked at.
const REST: Duration = Duration::from_secs(10);
/// The aims, in MiB.
const AIMS: [(&str, f64); 2] = [("server", 40.0), ("worker", 20.0)];

/// A process's memory, in MiB.
pub struct Memory {
    pub resident: f64,
    /// Of it, pages of files: the program and its libraries, mostly.
    files: f64,
}

impl Memory {
    pub fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number =
                line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
            Ok(number.context("a process's memory")?.parse::<f64>()? / 1024.0)
        };
        Ok(Self {
            resident: field("VmRSS")?,
            files: field("RssFile")?,
        })
    }
}

pub async fn measure() -> Result<Report> {
    let mut table = Table::new(
        "Memory when idle, in MiB",
        &[
            "process, its farm's parts, when",
            "resident",
            "of files",
            "its own",
            "aim",
            "",
        ],
    );
    let mut figures = Vec::new();
    let farm = Farm::start(None, &[]).await?;
    of(&farm, "SQLite, directory", &mut table, &mut figures).await?;
    drop(farm);
    let engines = Engines::start()?;
    let farm = engines.farm(true).await?;
    of(&farm, "PostgreSQL, S3, bus", &mut table, &mut figures).await?;
    Ok(Report {
        tables: vec![table],
        figures: figures.into(),
    })
}

async fn of(farm: &Farm, parts: &str, table: &mut Table, figures: &mut Vec<Value>) -> Result<()> {
    let worker = farm.worker("one", SLOTS).await?;
    for (when, jobs) in [
        ("after start".to_owned(), 0),
        (format!("after {JOBS} jobs"), JOBS),
    ] {
        null_jobs(farm, jobs).await?;
        tokio::time::sleep(REST).await;
        for ((name, aim), pid) in AIMS.into_iter().zip([farm.server().pid()?, worker.pid()?]) {
            let Memory { resident, files } = Memory::of(pid)?;
            table.row([
                format!("{name}, {parts}, {when}"),
                format!("{resident:.1}"),
                format!("{files:.1}"),
                format!("{:.1}", resident - files),
                format!("{aim:.0}"),
                if resident <= aim { "met" } else { "missed" }.to_owned(),
            ]);
            figures.push(json!({
                "process": name,
                "parts": parts,
                "after_jobs": jobs,
                "resident_mib": resident,
                "files_mib": files,
                "aim_mib": aim,
            }));
        }
    }
    Ok(())
}

/// Runs so many jobs that do nothing.
async fn null_jobs(farm: &Farm, count: usize) -> Result<()> {
    let client = farm.client()?;
    let manifest = manifest("true");
    let mut last = None;
    for _ in 0..count {
        last = Some(farm.submit(&client, &manifest).await?);
    }
    // The queue is one share's and so in order; those before the last end soon after it at
    // most.
    match last {
        Some(job) => farm.succeeds(&client, job, Duration::from_mins(10)).await,
        None => Ok(()),
    }
}
