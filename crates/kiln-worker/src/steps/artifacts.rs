//! Collecting the artifacts, once all tasks have succeeded (as upstream: a
//! build that failed keeps none).
//!
//! One that can't be kept does not keep the others from it; the job then fails
//! with all of them named.

use std::{collections::HashSet, io, path::Path};

use async_trait::async_trait;
use kiln_vm::machine::{Bounded, Exec, Guest, GuestError, Sink, Stderr};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::{fs::File, io::AsyncWriteExt};

use crate::{
    Artifact, Job, Step,
    log::{ANSWER, size},
    outcome::Failure,
    progress::Progress,
    script::{bash, in_home},
};

/// Prints the size. Argument: path.
const LOOK: &str = r#"
[ -e "$1" ] || exit 201
[ ! -d "$1" ] || exit 202
[ -f "$1" ] || exit 203
[ -r "$1" ] || exit 204
exec stat -L -c %s -- "$1"
"#;

/// Prints the content. Argument: path.
const READ: &str = r#"
look() { stat -L -c '%d %i %s %y' -- "$1"; }
before=$(look "$1") || exit
cat -- "$1" || exit
[ "$before" = "$(look "$1")" ] || exit 201
"#;

/// The exit status of [`READ`] when the file is another one in the end.
const CHANGED: u32 = 201;

pub(super) async fn run(
    job: &Job,
    guest: &dyn Guest,
    progress: &mut Progress<'_>,
) -> Result<(), Failure> {
    let paths = job.manifest.artifacts();
    if paths.is_empty() {
        return Ok(());
    }
    progress
        .step_begins(Step::Artifacts, &paths.join(" "))
        .await?;
    // The last task may have broken the connection, or left it with as many
    // channels as the guest's server allows.
    let mended = guest.fresh_login().await;
    mended.map_err(|error| Failure::guest(Step::Artifacts, error))?;
    let mut refused = Vec::new();
    for (index, (path, file)) in paths.iter().zip(file_names(paths)).enumerate() {
        match collect(job, guest, path, &file).await {
            Ok((size, sha256)) => {
                let path = path.clone();
                let artifact = Artifact {
                    index,
                    path,
                    file,
                    size,
                    sha256,
                };
                progress.kept(artifact).await?;
            }
            Err(Refused::Artifact(why)) => refused.push(format!("{path} {why}")),
            Err(Refused::Job(failure)) => return Err(failure),
        }
    }
    if refused.is_empty() {
        return progress.step_ends().await;
    }
    Err(Failure::step(Step::Artifacts, refused.join("; ")))
}

/// Why an artifact was not kept.
enum Refused {
    /// The rest of a sentence that begins with its path.
    Artifact(String),
    /// Nothing more can be done in this job.
    Job(Failure),
}

impl From<GuestError> for Refused {
    fn from(error: GuestError) -> Self {
        Self::Job(Failure::guest(Step::Artifacts, error))
    }
}

/// Keeps one file; its size and digest.
async fn collect(
    job: &Job,
    guest: &dyn Guest,
    path: &str,
    file: &str,
) -> Result<(u64, String), Refused> {
    let there = in_home(&guest.login().home, path);
    let size = look(guest, &there, job.limits.artifact).await?;
    let host = |error| host_failed(path, error);
    let temporary = tempfile::Builder::new()
        .prefix(".kiln-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .tempfile_in(&job.artifacts_dir)
        .map_err(host)?;
    let mut store = Store {
        file: File::from_std(temporary.reopen().map_err(host)?),
        hash: Sha256::new(),
        left: size,
        error: None,
    };
    let command = bash(READ, &[&there]);
    let read = guest.exec(data(&command), &mut store).await;
    let changed = || Refused::Artifact("changed while it was read".into());
    match (read, store.error.take()) {
        (_, Some(error)) => return Err(host(error)),
        (Err(GuestError::Output(_)), None) => return Err(changed()),
        (Err(error), None) => return Err(error.into()),
        (Ok(code), None) if code.success() && store.left == 0 => {}
        (Ok(code), None) if code.success() || code.0 == CHANGED => return Err(changed()),
        (Ok(_), None) => return Err(Refused::Artifact("could not be read".into())),
    }
    store.file.flush().await.map_err(host)?;
    keep(temporary, &job.artifacts_dir.join(file)).map_err(host)?;
    let digest = store.hash.finalize();
    let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((size, digest))
}

/// The size of the file, when it is one that can be kept.
async fn look(guest: &dyn Guest, path: &str, limit: u64) -> Result<u64, Refused> {
    let mut answer = Bounded::new(ANSWER);
    let command = bash(LOOK, &[path]);
    let code = guest.exec(data(&command), &mut answer).await?;
    let why = match code.0 {
        0 => match String::from_utf8_lossy(&answer.bytes).trim().parse() {
            Ok(bytes) if bytes <= limit => return Ok(bytes),
            Ok(bytes) => format!(
                "is {} large; an artifact may have {}",
                size(bytes),
                size(limit)
            ),
            Err(_) => "has no size that the image could tell".into(),
        },
        201 => "does not exist".into(),
        202 => "is a directory: pack it in a task, for example with tar".into(),
        203 => "is no regular file".into(),
        204 => "can't be read by the build's user".into(),
        code => format!("could not be looked at (exit {code})"),
    };
    Err(Refused::Artifact(why))
}

/// A command whose output is data.
fn data(command: &str) -> Exec<'_> {
    Exec {
        stderr: Stderr::Dropped,
        ..Exec::new(command)
    }
}

fn keep(temporary: NamedTempFile, path: &Path) -> io::Result<()> {
    temporary.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn host_failed(path: &str, error: io::Error) -> Refused {
    let why = match error.kind() {
        io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput => {
            return Refused::Artifact("has a name that no file here can have".into());
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "has no space left for",
        _ => "could not store",
    };
    Refused::Job(Failure::Host {
        reason: format!("artifacts: the host {why} {path}"),
        error,
    })
}

/// Writes what is read, as long as it is no more than was announced.
struct Store {
    file: File,
    hash: Sha256,
    left: u64,
    error: Option<io::Error>,
}

#[async_trait]
impl Sink for Store {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::other("more than was announced"))?;
        self.hash.update(bytes);
        self.file.write_all(bytes).await.map_err(|error| {
            let kind = error.kind();
            self.error = Some(error);
            kind.into()
        })
    }
}

/// The files' names on the host: base names, told apart by a number in front
/// where equal ones meet. None has a slash, so none leads anywhere else.
fn file_names(paths: &[String]) -> Vec<String> {
    let base = |path: &String| {
        let name = Path::new(path).file_name();
        let name = name.map(|name| name.to_string_lossy().into_owned());
        // Such a path is a directory's and is refused when it is looked at.
        name.unwrap_or_else(|| "artifact".into())
    };
    let bases: Vec<String> = paths.iter().map(base).collect();
    let wanted: HashSet<&String> = bases.iter().collect();
    let mut taken = HashSet::new();
    let mut names = Vec::with_capacity(bases.len());
    for base in &bases {
        let numbered = (2..).map(|number| format!("{number}-{base}"));
        let free =
            |name: &String| !taken.contains(name) && (name == base || !wanted.contains(name));
        let name = std::iter::once(base.clone()).chain(numbered).find(free);
        let name = name.unwrap_or_else(|| base.clone());
        taken.insert(name.clone());
        names.push(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_as_one() {
        let Refused::Job(failure) = host_failed("out", io::ErrorKind::StorageFull.into()) else {
            panic!("the artifact was blamed");
        };
        assert_eq!(
            failure.reason(),
            "artifacts: the host has no space left for out"
        );
    }

    #[test]
    fn equal_base_names_are_kept_apart() {
        let names = |paths: &[&str]| {
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            file_names(&paths)
        };
        assert_eq!(names(&["a/x", "b/x", "x"]), ["x", "2-x", "3-x"]);
        assert_eq!(names(&["a/x", "b/x", "2-x"]), ["x", "3-x", "2-x"]);
        assert_eq!(names(&["../../etc/passwd", "a/.."]), ["passwd", "artifact"]);
    }
}
