//! `kiln submit`, `resubmit` and `group`: jobs to be.

use std::path::{Path, PathBuf};

use kiln_core::manifest::MAX_BYTES;
use serde_json::{Value, json};

use super::{follow_to_exit, print_json};
use crate::{
    cli::client::{GroupArgs, ResubmitArgs, SubmitArgs},
    commands::{manifest, run::default_manifest},
    exit::{Exit, Failure},
    farm::{Farm, FarmError, idempotency_key},
    host::files,
    ui::{self, display::Display},
};

/// Runs `kiln submit`.
pub async fn run(args: &SubmitArgs) -> Result<Exit, Failure> {
    let files = match args.files.as_slice() {
        [] => vec![default_manifest(Path::new("."))?],
        files => files.to_vec(),
    };
    let texts = tokio::task::spawn_blocking(move || read_all(&files)).await;
    let texts = texts.map_err(Failure::host)??;
    let farm = Farm::of(&args.farm)?;
    let mut jobs = Vec::new();
    for text in texts {
        let job = submit(&farm, &variables(&text, args)).await?;
        announce(&farm, &job, args.json.json, args.pending);
        jobs.push(job);
    }
    if !args.follow {
        return Ok(Exit::Success);
    }
    follow_all(&farm, &jobs, args.json.json).await
}

/// All files are read and looked at before the first is submitted.
fn read_all(files: &[PathBuf]) -> Result<Vec<String>, Failure> {
    files.iter().map(|file| read(file)).collect()
}

fn read(file: &Path) -> Result<String, Failure> {
    let stdin = Path::new("/dev/stdin");
    let path = if file == Path::new("-") { stdin } else { file };
    let fail = |why: &dyn std::fmt::Display| Failure::usage(format!("{}: {why}", file.display()));
    if path.is_dir() {
        return Err(fail(&"is a directory; name a manifest in it"));
    }
    let bytes = files::read(path, MAX_BYTES as u64 + 1).map_err(|error| fail(&error))?;
    let parsed = kiln_core::manifest::parse(&bytes).map_err(|refused| {
        let lines = refused
            .diagnostics
            .iter()
            .map(|line| format!("{}: {line}", file.display()));
        Failure::usage(lines.collect::<Vec<_>>().join("\nkiln: "))
    })?;
    manifest::warn(file, &parsed.warnings);
    String::from_utf8(bytes).map_err(|_| fail(&"is not UTF-8"))
}

fn variables(text: &str, args: &SubmitArgs) -> Value {
    json!({
        "manifest": text,
        "tags": args.tag,
        "note": args.note,
        // Absent: with them where the manifest names some and the token may.
        "secrets": args.no_secrets.then_some(false),
        "execute": !args.pending,
        "visibility": args.visibility.map(crate::cli::client::Visibility::as_str),
        "requirements": (!args.require.is_empty()).then_some(&args.require),
    })
}

/// Submits one job, which is one however often it has to be sent.
async fn submit(farm: &Farm, variables: &Value) -> Result<Value, Failure> {
    let job = farm.submit(variables, &idempotency_key()?).await?;
    match id(&job) {
        Some(_) => Ok(job),
        None => Err(FarmError::Refused("the farm says neither yes nor no".into()).into()),
    }
}

fn id(job: &Value) -> Option<i32> {
    job["id"].as_i64().and_then(|id| i32::try_from(id).ok())
}

fn announce(farm: &Farm, job: &Value, json: bool, pending: bool) {
    if json {
        return print_json(job);
    }
    let owner = job["owner"]["canonicalName"].as_str().unwrap_or("~");
    let id = id(job).unwrap_or_default();
    ui::line(&farm.job_url(owner, id));
    if pending {
        ui::note(&format!("job {id} is pending; `kiln start {id}` starts it"));
    }
}

/// One after the other. The status is the first that is not success.
async fn follow_all(farm: &Farm, jobs: &[Value], json: bool) -> Result<Exit, Failure> {
    let mut status = Exit::Success;
    for id in jobs.iter().filter_map(id) {
        let exit = match json {
            true => wait_with_json(farm, id).await?,
            false => follow_to_exit(farm, id, &Display::new(false)).await?,
        };
        if exit == Exit::Interrupted {
            return Ok(exit);
        }
        if status == Exit::Success {
            status = exit;
        }
    }
    Ok(status)
}

/// For programs: the job's object at its end, and no logs.
async fn wait_with_json(farm: &Farm, id: i32) -> Result<Exit, Failure> {
    let waited = async {
        loop {
            let job = farm.job(id).await?;
            if job.ended() {
                print_json(&farm.shown_job(id).await?);
                return Ok::<_, FarmError>(crate::farm::exit(&job));
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        exit = waited => Ok(exit?),
        _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
    }
}

/// Runs `kiln resubmit`.
pub async fn resubmit(args: &ResubmitArgs) -> Result<Exit, Failure> {
    let farm = Farm::of(&args.farm)?;
    let old = farm
        .job_fields(farm.job_id(&args.job)?, "manifest tags note visibility")
        .await?;
    let variables = json!({
        "manifest": old["manifest"],
        "tags": old["tags"],
        "note": args.note.as_ref().map_or(old["note"].clone(), |note| note.as_str().into()),
        "visibility": old["visibility"],
        "execute": true,
    });
    let job = submit(&farm, &variables).await?;
    announce(&farm, &job, args.json.json, false);
    if !args.follow {
        return Ok(Exit::Success);
    }
    follow_all(&farm, &[job], args.json.json).await
}

/// Runs `kiln group`.
pub async fn group(args: &GroupArgs) -> Result<Exit, Failure> {
    // What names a file is one; a number or a URL names none.
    let (files, jobs): (Vec<&String>, Vec<&String>) = args
        .members
        .iter()
        .partition(|word| Path::new(word).is_file());
    let files: Vec<PathBuf> = files.into_iter().map(PathBuf::from).collect();
    let texts = tokio::task::spawn_blocking(move || read_all(&files)).await;
    let texts = texts.map_err(Failure::host)??;
    let farm = Farm::of(&args.farm)?;
    let mut ids = Vec::new();
    for word in jobs {
        ids.push(farm.job_id(word)?);
    }
    for text in texts {
        let job = submit(&farm, &json!({ "manifest": text, "execute": false })).await?;
        announce(&farm, &job, args.json.json, false);
        ids.extend(id(&job));
    }
    let emails = args
        .email
        .iter()
        .map(|to| json!({ "type": "EMAIL", "condition": "ALWAYS", "email": { "to": to } }));
    let hooks = args
        .webhook
        .iter()
        .map(|url| json!({ "type": "WEBHOOK", "condition": "ALWAYS", "webhook": { "url": url } }));
    let variables = json!({
        "jobs": ids,
        "triggers": emails.chain(hooks).collect::<Vec<Value>>(),
        "execute": !args.pending,
        "note": args.note,
    });
    let group = farm.group(&variables).await?;
    match args.json.json {
        true => print_json(&group),
        false => ui::line(&format!("group {} of {} jobs", group["id"], ids.len())),
    }
    Ok(Exit::Success)
}
