//! `kiln workers` and `kiln queue`: who is there, what waits and why.

use serde_json::{Value, json};

use super::{
    print, print_json,
    table::{ago, lines, text},
};
use crate::{
    cli::client::FarmListArgs,
    exit::{Exit, Failure},
    farm::Farm,
    ui,
};

const WORKERS: &str = "{ workers { name session version started seen labels images { name arch digest } slots capacity \
    mood reason shortOf paused runs } }";
const QUEUE: &str = "{ queue { owner reason job { id created image tags note } } }";

/// Lists workers.
pub async fn workers(args: &FarmListArgs) -> Result<Exit, Failure> {
    let mut data = Farm::of(&args.farm)?.query(WORKERS, &json!({})).await?;
    shown(&data["workers"].take(), args, "no worker is here", worker)
}

/// Lists what waits.
pub async fn queue(args: &FarmListArgs) -> Result<Exit, Failure> {
    let mut data = Farm::of(&args.farm)?.query(QUEUE, &json!({})).await?;
    shown(&data["queue"].take(), args, "nothing waits", waiting)
}

fn shown(
    list: &Value,
    args: &FarmListArgs,
    nothing: &str,
    row: fn(&Value) -> Vec<String>,
) -> Result<Exit, Failure> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    if args.json.json {
        list.iter().for_each(print_json);
        return Ok(Exit::Success);
    }
    if list.is_empty() {
        ui::note(nothing);
    }
    let rows: Vec<Vec<String>> = list.iter().map(row).collect();
    lines(&rows).iter().for_each(|line| print(line));
    Ok(Exit::Success)
}

fn worker(worker: &Value) -> Vec<String> {
    let runs: Vec<String> = worker["runs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect();
    let state = [
        worker["paused"]
            .as_str()
            .map(|why| format!("paused: {why}")),
        worker["reason"]
            .as_str()
            .map(|why| format!("unwell: {why}")),
        worker["shortOf"]
            .as_str()
            .map(|what| format!("short of {what}")),
    ];
    let state = state.into_iter().flatten().next();
    let images = worker["images"].as_array().into_iter().flatten();
    let images = images.map(|image| format!("{}/{}", text(&image["name"]), text(&image["arch"])));
    let labels = worker["labels"].as_array().into_iter().flatten().map(text);
    let offers: Vec<String> = images.chain(labels).collect();
    let session = text(&worker["session"]);
    vec![
        text(&worker["name"]),
        session.get(..8).unwrap_or_default().to_owned(),
        text(&worker["version"]),
        format!("{}/{} slots", runs.len(), text(&worker["slots"])),
        state.unwrap_or_else(|| text(&worker["mood"]).to_lowercase()),
        match runs.as_slice() {
            [] => String::new(),
            runs => format!("runs {}", runs.join(" ")),
        },
        offers.join(" "),
    ]
}

fn waiting(queued: &Value) -> Vec<String> {
    let job = &queued["job"];
    vec![
        text(&job["id"]),
        text(&queued["owner"]),
        text(&job["image"]),
        ago(&job["created"]),
        text(&queued["reason"]),
    ]
}
