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
    farm::{Farm, manifest},
    table::{Table, percentile},
};

/// Lines that a task says, and the time between two.
const LINES: usize = 600;
const PAUSE: &str = "0.05";
/// What stands before the time in each.
const MARK: &str = "it is ";
/// How long the task may take to start.
const LONG: Duration = Duration::from_secs(60);
/// The aim, in milliseconds.
const AIM: f64 = 200.0;

pub async fn measure() -> Result<Report> {
    let mut table = Table::new(
        "Live tail, from the task's line to the reader, in milliseconds",
        &[
            "storage, reader, bus",
            "p50",
            "p99",
            "longest",
            "aim of p99",
            "",
        ],
    );
    let mut figures = Vec::new();
    let farm = Farm::start(None, &[]).await?;
    let _worker = farm.worker("one", 1).await?;
    let late = follow(&farm).await?;
    let p99 = percentile(&late, 99);
    table.row([
        "directory, same server, none".to_owned(),
        format!("{:.1}", percentile(&late, 50)),
        format!("{p99:.1}"),
        format!("{:.1}", percentile(&late, 100)),
        format!("{AIM:.0}"),
        if p99 <= AIM { "met" } else { "missed" }.to_owned(),
    ]);
    figures.push(json!({
        "storage": "directory",
        "reader": "same server",
        "bus": false,
        "lines": late.len(),
        "p50_ms": percentile(&late, 50),
        "p99_ms": p99,
        "longest_ms": percentile(&late, 100),
    }));
    Ok(Report {
        tables: vec![table],
        figures: figures.into(),
    })
}

/// How late each line of a task was, in milliseconds.
async fn follow(farm: &Farm) -> Result<Vec<f64>> {
    let client = farm.client()?;
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
    Ok(late)
}

/// The log, once it is there.
async fn opened(client: &Client, job: JobId) -> Result<kiln_wire::client::Answer> {
    let path = format!("/query/log/{job}/it/log?follow");
    loop {
        let answer = client.send(Request::get(&path).body(empty())?).await?;
        match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(answer),
            StatusCode::NOT_FOUND => tokio::time::sleep(Duration::from_millis(20)).await,
            status => bail!("the log is not there: {status}"),
        }
    }
}
