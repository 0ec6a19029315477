//! Directories, and what makes their entries survive a crash.

use std::{
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use kiln_core::farm::JobId;

pub(crate) const LOGS: &str = "logs";
pub(crate) const ARTIFACTS: &str = "artifacts";
pub(crate) const INCOMING: &str = "incoming";

/// Runs what may wait for the disk where that stops nobody else. It runs to its end,
/// also when nobody waits for it any more.
pub(crate) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<io::Error> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(stopped) => Err(io::Error::other(stopped).into()),
    }
}

/// Makes the directories, and removes the uploads of a process that is gone.
pub(crate) fn prepare(dir: &Path) -> io::Result<()> {
    for part in [LOGS, ARTIFACTS, INCOMING] {
        make(&dir.join(part))?;
    }
    sync(dir)?;
    for left in std::fs::read_dir(dir.join(INCOMING))? {
        std::fs::remove_file(left?.path())?;
    }
    Ok(())
}

/// Where what belongs to a job is: not all jobs in one directory.
pub(crate) fn of_job(dir: &Path, job: JobId) -> PathBuf {
    dir.join((job.0 / 1000).to_string()).join(job.to_string())
}

/// Makes a directory and those above it, private to the user.
pub(crate) fn make(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Makes the entry `path` below `root` survive a crash, and those of all directories
/// between.
pub(crate) fn sync_entries(root: &Path, path: &Path) -> io::Result<()> {
    for above in path.ancestors().skip(1) {
        sync(above)?;
        if above == root {
            break;
        }
    }
    Ok(())
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
