//! How soon who follows a log reads a line that a task says.

use std::time::{Duration, SystemTime};

use anyhow::{Result, bail, ensure};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use kiln_core::farm::JobId;
use kiln_wire::client::{Client, empty};
use serde_json::json;

use crate::{
    Report,
    engines::Engines,
    farm::{Farm, manifest},
    table::{Table, percentile},
};

/// Lines that a task says, and the time between two.
const LINES: usize = 1000;
const PAUSE: &str = "0.05";
/// What stands before the time in each.
const MARK: &str = "it is ";
/// How long the task may take to start.
const LONG: Duration = Duration::from_secs(60);
/// The aim, in milliseconds.
const AIM: f64 = 200.0;

pub async fn measure() -> Result<Report> {
    let mut seen = Vec::new();
    let farm = Farm::start(None, &[]).await?;
    let worker = farm.worker("one", 1).await?;
    seen.push(("directory", "same", "none", follow(&farm, 0).await?));
    drop((worker, farm));
    let engines = Engines::start()?;
    for (bus, name) in [(false, "none"), (true, "Redis")] {
        let mut farm = engines.farm(bus).await?;
        farm.add_server().await?;
        let _worker = farm.worker("one", 1).await?;
        for (server, reader) in [(0, "same"), (1, "other")] {
            seen.push(("S3", reader, name, follow(&farm, server).await?));
        }
    }
    let mut table = Table::new(
        "Live tail, from the task's line to the reader, in milliseconds",
        &[
            "storage, reader's server, bus",
            "n",
            "p50",
            "p99",
            "longest",
            "aim of p99",
            "",
        ],
    );
    let mut figures = Vec::new();
    for (storage, reader, bus, late) in &seen {
        let p99 = percentile(late, 99);
        table.row([
            format!("{storage}, {reader}, {bus}"),
            late.len().to_string(),
            format!("{:.1}", percentile(late, 50)),
            format!("{p99:.1}"),
            format!("{:.1}", percentile(late, 100)),
            format!("{AIM:.0}"),
            if p99 <= AIM { "met" } else { "missed" }.to_owned(),
        ]);
        figures.push(json!({
            "storage": storage,
            "reader": reader,
            "bus": bus,
            "lines": late.len(),
            "p50_ms": percentile(late, 50),
            "p99_ms": p99,
            "longest_ms": percentile(late, 100),
        }));
    }
    table.note("the worker is connected to one server, and the reader to the same or to another;");
    table.note(
        "S3: s3s-fs, and PostgreSQL; readers take bytes before they are stored, as kiln's do",
    );
    Ok(Report {
        tables: vec![table],
        figures: figures.into(),
    })
}

/// How late each line of a task was, in milliseconds, for who reads at this server.
async fn follow(farm: &Farm, server: usize) -> Result<Vec<f64>> {
    let client = farm.client_at(server)?;
    let script = format!(
        "set +x; for i in {{1..{LINES}}}; do echo \"{MARK}$EPOCHREALTIME\"; sleep {PAUSE}; done"
    );
    let job = farm.submit(&client, &manifest(&script)).await?;
    let answer = tokio::time::timeout(LONG, opened(&client, job)).await??;
    let mut body = answer.into_body();
    let mut text = Vec::new();
    let mut late = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame?.into_data() else {
            continue;
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        text.extend_from_slice(&bytes);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let line = String::from_utf8(line)?;
            if let Some(said) = line.strip_prefix(MARK) {
                late.push(now.as_secs_f64() * 1e3 - said.trim_end().parse::<f64>()? * 1e3);
            }
        }
    }
    ensure!(late.len() == LINES, "{} lines of {LINES} came", late.len());
    farm.succeeds(&client, job, LONG).await?;
    Ok(late)
}

/// The log, once it is there, as kiln's own commands follow it.
async fn opened(client: &Client, job: JobId) -> Result<kiln_wire::client::Answer> {
    let path = format!("/query/log/{job}/it/log?follow=early");
    loop {
        let answer = client.send(Request::get(&path).body(empty())?).await?;
        match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(answer),
            StatusCode::NOT_FOUND => tokio::time::sleep(Duration::from_millis(20)).await,
            status => bail!("the log is not there: {status}"),
        }
    }
}
