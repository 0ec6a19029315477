//! `--here`: the working copy in this directory in place of the source that is
//! this repository, uncommitted changes included.
//!
//! The guest gets a bundle of HEAD's history, which holds no configuration, no
//! hooks and no credentials of this host, and over it the files that differ.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use kiln_core::manifest::{Manifest, Scm, Source};
use kiln_worker::Overlay;
use tokio::process::Command;

use crate::exit::Failure;

/// Prepares the working copy; its files go into `scratch`.
pub async fn overlay(dir: &Path, manifest: &Manifest, scratch: &Path) -> Result<Overlay, Failure> {
    let top = top(dir)
        .await
        .map_err(|error| Failure::usage(format!("--here: {error:#}")))?;
    let remotes = remotes(&top).await?;
    let source = find(manifest.sources(), &top, &remotes)
        .map_err(|error| Failure::usage(format!("--here: {error}")))?;
    let (bundle, changes, deleted) = pack(&top, scratch)
        .await
        .map_err(|error| Failure::usage(format!("--here: {error:#}")))?;
    Ok(Overlay {
        source,
        bundle,
        changes,
        deleted,
    })
}

async fn top(dir: &Path) -> anyhow::Result<PathBuf> {
    let top = git(dir, &["rev-parse", "--show-toplevel"]).await?;
    Ok(PathBuf::from(
        String::from_utf8(top)?.trim_end_matches('\n'),
    ))
}

async fn remotes(top: &Path) -> anyhow::Result<Vec<String>> {
    let config = git(top, &["remote", "-v"]).await?;
    let text = String::from_utf8_lossy(&config).into_owned();
    Ok(text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(str::to_owned)
        .collect())
}

/// The source with the URL of a remote of ours; else the one that is called
/// like this directory.
fn find(sources: &[Source], top: &Path, remotes: &[String]) -> Result<usize, String> {
    let git = |source: &&Source| source.scm() == Scm::Git;
    let by_url = |source: &Source| {
        remotes
            .iter()
            .any(|remote| comparable(remote) == comparable(source.clone_url()))
    };
    let name = top.file_name().unwrap_or_default().to_string_lossy();
    let by_name = |source: &Source| source.directory() == name;
    let found = sources
        .iter()
        .position(|source| git(&source) && by_url(source))
        .or_else(|| {
            sources
                .iter()
                .position(|source| git(&source) && by_name(source))
        });
    found.ok_or_else(|| {
        let written: Vec<&str> = sources.iter().map(Source::as_str).collect();
        format!(
            "no source of the manifest is this repository: its remotes are [{}], its directory is `{name}`, the sources are [{}]",
            remotes.join(", "),
            written.join(", ")
        )
    })
}

/// `https://host/path.git/`, `ssh://git@host/path` and `git@host:path` are the
/// same repository.
fn comparable(url: &str) -> String {
    let url = url.strip_prefix("git+").unwrap_or(url);
    let rest = match url.split_once("://") {
        Some((_, rest)) => rest.to_owned(),
        None => url.replacen(':', "/", 1),
    };
    let rest = match rest.split_once('/') {
        Some((host, path)) => format!("{}/{path}", host.rsplit('@').next().unwrap_or(host)),
        None => rest,
    };
    rest.trim_end_matches('/')
        .trim_end_matches(".git")
        .to_owned()
}

async fn pack(
    top: &Path,
    scratch: &Path,
) -> anyhow::Result<(PathBuf, Option<PathBuf>, Vec<PathBuf>)> {
    let shallow = git(top, &["rev-parse", "--is-shallow-repository"]).await?;
    if shallow.starts_with(b"true") {
        bail!("this clone is shallow and can't be cloned again; `git fetch --unshallow` first");
    }
    git(top, &["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])
        .await
        .context("this repository has no commit yet")?;
    let bundle = scratch.join("here.bundle");
    let name = bundle.display().to_string();
    git(top, &["bundle", "create", "--quiet", &name, "HEAD"]).await?;
    let mut differing = git(top, &["diff", "--name-only", "--no-renames", "-z", "HEAD"]).await?;
    differing.extend(git(top, &["ls-files", "--others", "--exclude-standard", "-z"]).await?);
    let (mut present, mut deleted) = (Vec::new(), Vec::new());
    for path in differing
        .split(|&byte| byte == 0)
        .filter(|path| !path.is_empty())
    {
        let path =
            PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path));
        if top.join(&path).symlink_metadata().is_ok() {
            present.push(path);
        } else {
            deleted.push(path);
        }
    }
    let changes = if present.is_empty() {
        None
    } else {
        Some(archive(top, scratch, &present).await?)
    };
    Ok((bundle, changes, deleted))
}

async fn archive(top: &Path, scratch: &Path, paths: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let list = scratch.join("here.list");
    let mut names = Vec::new();
    for path in paths {
        names.extend(path.as_os_str().as_encoded_bytes());
        names.push(0);
    }
    std::fs::write(&list, names)?;
    let tar = scratch.join("here.tar");
    let status = Command::new("tar")
        .arg("--create")
        .arg("--file")
        .arg(&tar)
        .arg("--directory")
        .arg(top)
        .args([
            "--no-recursion",
            "--owner=0",
            "--group=0",
            "--null",
            "--verbatim-files-from",
            "--files-from",
        ])
        .arg(&list)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .context("tar")?;
    if !status.success() {
        bail!("tar could not pack the changed files ({status})");
    }
    Ok(tar)
}

async fn git(dir: &Path, args: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(args)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("git")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("git {}: {}", args.join(" "), said.trim());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(urls: &[&str]) -> Vec<Source> {
        urls.iter().map(|url| Source::parse(url).unwrap()).collect()
    }

    #[test]
    fn a_repository_is_found_by_any_form_of_its_url() {
        let sources = sources(&[
            "https://git.example/~a/other",
            "https://git.example/~a/thing#main",
        ]);
        for remote in [
            "git@git.example:~a/thing",
            "ssh://git@git.example/~a/thing.git",
            "https://git.example/~a/thing/",
        ] {
            assert_eq!(
                find(&sources, Path::new("/x/y"), &[remote.to_owned()]),
                Ok(1),
                "{remote}"
            );
        }
    }

    #[test]
    fn without_a_remote_the_directorys_name_counts() {
        let sources = sources(&["https://git.example/~a/thing"]);
        assert_eq!(find(&sources, Path::new("/x/thing"), &[]), Ok(0));
        assert!(find(&sources, Path::new("/x/other"), &[]).is_err());
    }
}
