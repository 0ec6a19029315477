//! `kiln artifacts`.

use serde_json::Value;

use super::{print, print_json};
use crate::{
    cli::client::ArtifactsArgs,
    exit::{Exit, Failure},
    farm::{Farm, download},
    ui,
};

/// Lists them, or fetches them.
pub async fn run(args: &ArtifactsArgs) -> Result<Exit, Failure> {
    let farm = Farm::of(&args.farm)?;
    let id = farm.job_id(&args.job)?;
    let (raw, artifacts) = farm.artifacts(id).await?;
    if args.json.json {
        for artifact in raw.as_array().into_iter().flatten() {
            print_json(artifact);
        }
    } else if artifacts.is_empty() {
        ui::note(&format!("job {id} has no artifacts"));
    }
    let Some(dir) = &args.download else {
        if !args.json.json {
            for artifact in &artifacts {
                print(&row(
                    artifact.size,
                    artifact.sha256.as_deref(),
                    &artifact.path,
                ));
            }
        }
        return Ok(Exit::Success);
    };
    let made = std::fs::create_dir_all(dir);
    made.map_err(|error| Failure::usage(format!("--download {}: {error}", dir.display())))?;
    for (artifact, to) in artifacts.iter().zip(download::names(dir, &artifacts)) {
        let Some(url) = &artifact.url else {
            ui::warning(&format!("{} is kept no more", artifact.path));
            continue;
        };
        download::fetch(&farm, artifact, url, &to).await?;
        if !args.json.json {
            print(&format!("{}", to.display()));
        }
    }
    Ok(Exit::Success)
}

fn row(size: u64, digest: Option<&str>, path: &str) -> String {
    let digest = digest
        .and_then(|digest| digest.get(..12))
        .unwrap_or_default();
    format!("{size:>12}  {digest:<12}  {path}")
}

/// The same of the API's object.
pub fn of_object(artifact: &Value) -> String {
    let path = artifact["path"].as_str().unwrap_or_default();
    row(
        artifact["size"].as_u64().unwrap_or_default(),
        artifact["sha256"].as_str(),
        path,
    )
}
