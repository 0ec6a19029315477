//! `kiln list` and `kiln show`.

use serde_json::Value;

use super::{
    artifacts, job_of, print, print_json,
    table::{ago, lines, text},
};
use crate::{
    cli::client::{JobArgs, ListArgs},
    exit::{Exit, Failure},
    farm::Farm,
    ui,
};

/// Lists jobs.
pub async fn list(args: &ListArgs) -> Result<Exit, Failure> {
    let farm = Farm::of(&args.farm)?;
    let jobs = farm.jobs(args.user.as_deref(), args.limit as usize).await?;
    if args.json.json {
        jobs.iter().for_each(print_json);
        return Ok(Exit::Success);
    }
    if jobs.is_empty() {
        ui::note("there are no jobs; `kiln submit` makes one");
    }
    let rows: Vec<Vec<String>> = jobs.iter().map(row).collect();
    lines(&rows).iter().for_each(|line| print(line));
    Ok(Exit::Success)
}

fn row(job: &Value) -> Vec<String> {
    let tasks = job["tasks"].as_array().into_iter().flatten();
    let marks: String = tasks.map(|task| mark(&task["status"])).collect();
    let tags: Vec<String> = list_of(&job["tags"]).map(|tag| format!("#{tag}")).collect();
    let note = text(&job["note"]);
    let note = note.lines().next().unwrap_or_default();
    vec![
        text(&job["id"]),
        text(&job["status"]).to_lowercase(),
        marks,
        ago(&job["created"]),
        text(&job["image"]),
        format!("{} {note}", tags.join(" ")).trim().to_owned(),
    ]
}

fn list_of(value: &Value) -> impl Iterator<Item = String> {
    value.as_array().into_iter().flatten().map(text)
}

fn mark(status: &Value) -> char {
    match status.as_str().unwrap_or_default() {
        "SUCCESS" => '✔',
        "FAILED" => '✘',
        "RUNNING" => '▸',
        "SKIPPED" => '–',
        _ => '·',
    }
}

/// Shows a job.
pub async fn show(args: &JobArgs) -> Result<Exit, Failure> {
    let (farm, id) = job_of(args)?;
    let job = farm.shown_job(id).await?;
    if args.json.json {
        print_json(&job);
        return Ok(Exit::Success);
    }
    let owner = text(&job["owner"]["canonicalName"]);
    let why = [&job["waiting"], &job["reason"]].map(text);
    let why = why.iter().find(|why| !why.is_empty());
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    print(&format!(
        "{}  {}{why}",
        farm.job_url(&owner, id),
        text(&job["status"]).to_lowercase()
    ));
    let tags: Vec<String> = list_of(&job["tags"]).map(|tag| format!("#{tag}")).collect();
    for (name, value) in [
        ("note", text(&job["note"])),
        ("tags", tags.join(" ")),
        ("visibility", text(&job["visibility"]).to_lowercase()),
        (
            "image",
            with(&text(&job["image"]), &text(&job["imageDigest"])),
        ),
        ("worker", text(&job["worker"])),
        ("created", text(&job["created"])),
        ("updated", text(&job["updated"])),
        ("group", text(&job["group"]["id"])),
    ] {
        if !value.is_empty() {
            print(&format!("  {name:<11}{value}"));
        }
    }
    for task in job["tasks"].as_array().into_iter().flatten() {
        let line = format!(
            "  {} {}  {}",
            mark(&task["status"]),
            text(&task["name"]),
            text(&task["status"]).to_lowercase()
        );
        print(&line);
    }
    for source in job["sources"].as_array().into_iter().flatten() {
        print(&format!(
            "  source {} at {}",
            text(&source["index"]),
            text(&source["commit"])
        ));
    }
    for artifact in job["artifacts"].as_array().into_iter().flatten() {
        print(&artifacts::of_object(artifact));
    }
    attempts(&job["attempts"]);
    Ok(Exit::Success)
}

/// Said when there is more to say than the job's own end.
fn attempts(attempts: &Value) {
    let attempts = attempts.as_array().map(Vec::as_slice).unwrap_or_default();
    if attempts.len() < 2 {
        return;
    }
    for attempt in attempts {
        let reason = text(&attempt["reason"]);
        let reason = if reason.is_empty() {
            reason
        } else {
            format!(": {reason}")
        };
        print(&format!(
            "  attempt {} on {}{reason}",
            text(&attempt["number"]),
            text(&attempt["worker"])
        ));
    }
}

fn with(image: &str, digest: &str) -> String {
    match digest.get(..12) {
        Some(digest) => format!("{image} ({digest})"),
        None => image.to_owned(),
    }
}
