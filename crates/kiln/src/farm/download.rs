//! Fetching artifacts, whole or not at all.

use std::{
    collections::HashSet,
    io::Write as _,
    path::{Path, PathBuf},
};

use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};

use super::{Farm, FarmError, api::Artifact};
use crate::exit::Failure;

/// Fetches an artifact into a directory, under this name.
///
/// # Errors
/// When it can't be fetched or written, or is not what the farm said.
pub async fn fetch(farm: &Farm, artifact: &Artifact, url: &str, to: &Path) -> Result<(), Failure> {
    let dir = to.parent().unwrap_or(Path::new("."));
    let here = |error: std::io::Error| Failure::host(format!("{}: {error}", to.display()));
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(here)?;
    let answer = farm.get(url, None).await?;
    let mut body = answer.into_body();
    let (mut size, mut digest) = (0u64, Sha256::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            FarmError::Away(format!(
                "{}: the download broke off: {error}",
                artifact.path
            ))
        })?;
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        size += bytes.len() as u64;
        if size > artifact.size {
            break;
        }
        digest.update(&bytes);
        file.write_all(&bytes).map_err(here)?;
    }
    let digest: String = digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let other_digest = artifact.sha256.as_ref().is_some_and(|said| *said != digest);
    if size != artifact.size || other_digest {
        return Err(Failure::host(format!(
            "{}: what came is not what the farm said: nothing was kept",
            artifact.path
        )));
    }
    readable(file.as_file()).map_err(here)?;
    file.persist(to).map_err(|error| here(error.error))?;
    Ok(())
}

/// As any file that its owner makes, not as a temporary one.
fn readable(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

/// What artifacts are called in a directory: their paths' last parts, which come
/// from a stranger, and a number before those that would be the same.
pub fn names(dir: &Path, artifacts: &[Artifact]) -> Vec<PathBuf> {
    let mut taken = HashSet::new();
    let name = |(index, artifact): (usize, &Artifact)| {
        let last = artifact.path.trim_end_matches('/').rsplit('/').next();
        let last = last.filter(|name| {
            !matches!(*name, "" | "." | "..")
                && !name.chars().any(char::is_control)
                && name.len() < 200
        });
        let mut name = last.map_or_else(|| format!("artifact-{index}"), str::to_owned);
        while !taken.insert(name.clone()) {
            name = format!("{index}-{name}");
        }
        dir.join(name)
    };
    artifacts.iter().enumerate().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_path_names_a_file_in_the_directory_and_nowhere_else() {
        let artifacts: Vec<Artifact> = ["a/out.tar", "b/out.tar", "../..", "x/", "/etc/\u{1b}[2J"]
            .map(|path| Artifact {
                path: path.to_owned(),
                size: 0,
                url: None,
                sha256: None,
            })
            .to_vec();
        let names = names(Path::new("d"), &artifacts);
        let names: Vec<String> = names
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        assert_eq!(
            names,
            [
                "d/out.tar",
                "d/1-out.tar",
                "d/artifact-2",
                "d/x",
                "d/artifact-4"
            ]
        );
    }
}
