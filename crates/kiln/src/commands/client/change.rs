//! `kiln cancel` and `kiln start`.

use super::{job_of, print_json};
use crate::{
    cli::client::JobArgs,
    exit::{Exit, Failure},
    ui,
};

/// Cancels a job.
pub async fn cancel(args: &JobArgs) -> Result<Exit, Failure> {
    let (farm, id) = job_of(args)?;
    let job = farm.cancel(id).await?;
    match args.json.json {
        true => print_json(&job),
        false => ui::note(&format!("job {id} is {}", status(&job))),
    }
    Ok(Exit::Success)
}

/// Starts a pending job.
pub async fn start(args: &JobArgs) -> Result<Exit, Failure> {
    let (farm, id) = job_of(args)?;
    let job = farm.start(id).await?;
    match args.json.json {
        true => print_json(&job),
        false => ui::note(&format!(
            "job {id} is {}; `kiln logs -f {id}` follows it",
            status(&job)
        )),
    }
    Ok(Exit::Success)
}

fn status(job: &serde_json::Value) -> String {
    job["status"].as_str().unwrap_or_default().to_lowercase()
}
