//! `kiln run --job`: a farm's job, to be run again here.

use kiln_core::manifest::{self, Manifest};
use serde_json::Value;

use super::{Farm, FarmError, api};
use crate::{cli::client::FarmArgs, exit::Failure, ui};

/// A farm's job as it was.
pub struct Recorded {
    /// Its manifest, with each source at the commit that it had.
    pub manifest: Manifest,
    /// The image's version, if one ever ran.
    pub digest: Option<String>,
}

/// Fetches a job: by its URL, or by its number on the farm that is known.
///
/// # Errors
/// When it can't be had, or its manifest can't be read.
pub async fn fetch(word: &str, args: &FarmArgs) -> Result<Recorded, Failure> {
    let id = api::job_id(word)?;
    let mut args = args.clone();
    if let (None, Some(server)) = (&args.server, api::server(word)) {
        args.server = Some(server.to_owned());
    }
    let farm = Farm::of(&args)?;
    let fields = "manifest imageDigest sources { index commit }";
    recorded(id, &farm.job_fields(id, fields).await?)
}

fn recorded(id: i32, job: &Value) -> Result<Recorded, Failure> {
    let text = job["manifest"].as_str().unwrap_or_default();
    let parsed = manifest::parse(text.as_bytes()).map_err(|refused| {
        let lines = refused
            .diagnostics
            .iter()
            .map(|line| format!("job {id}: {line}"));
        Failure::usage(lines.collect::<Vec<_>>().join("\nkiln: "))
    })?;
    let mut manifest = parsed.manifest;
    let commits = job["sources"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut pinned = 0;
    for (index, source) in manifest.sources.iter_mut().flatten().enumerate() {
        let commit = commits
            .iter()
            .find(|source| source["index"].as_u64() == Some(index as u64));
        if let Some(commit) = commit.and_then(|source| source["commit"].as_str()) {
            let at = source.at(commit).map_err(|problem| {
                Failure::from(FarmError::Refused(format!(
                    "the farm's commit of {source}: {problem}"
                )))
            })?;
            *source = at;
            pinned += 1;
        }
    }
    let sources = manifest.sources().len();
    if pinned < sources {
        ui::warning(&format!(
            "job {id} recorded the commits of {pinned} of its {sources} sources; the others are cloned as they are now"
        ));
    }
    Ok(Recorded {
        manifest,
        digest: job["imageDigest"].as_str().map(str::to_owned),
    })
}

/// Says whether the image here is the one that the job ran on.
pub fn compare_image(recorded: &Recorded, here: &str) {
    match &recorded.digest {
        Some(there) if there == here => {
            ui::note("the image here is the version that the job ran on");
        }
        Some(there) => ui::warning(&format!(
            "the image here is another version ({}) than the job ran on ({})",
            short(here),
            short(there)
        )),
        None => {
            ui::warning("the job never came to an image: its version is not known");
        }
    }
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sources_are_cloned_at_the_commits_that_the_job_had() {
        let job = json!({
            "manifest": "image: debian/bookworm\nsources:\n- https://git.example/a\n- b::hg+https://hg.example/b#tip\ntasks: [{a: b}]\n",
            "sources": [{"index": 0, "commit": "0123abc"}, {"index": 1, "commit": "feed"}],
            "imageDigest": "00ff",
        });
        let recorded = recorded(1, &job).unwrap();
        let sources: Vec<&str> = recorded
            .manifest
            .sources()
            .iter()
            .map(manifest::Source::as_str)
            .collect();
        assert_eq!(
            sources,
            [
                "https://git.example/a#0123abc",
                "b::hg+https://hg.example/b#feed"
            ]
        );
        assert_eq!(recorded.digest.as_deref(), Some("00ff"));
    }

    #[test]
    fn a_commit_that_is_an_option_is_refused() {
        let job = json!({
            "manifest": "image: debian/bookworm\nsources: [https://git.example/a]\ntasks: [{a: b}]\n",
            "sources": [{"index": 0, "commit": "--upload-pack=x"}],
        });
        assert!(recorded(1, &job).is_err());
    }
}
