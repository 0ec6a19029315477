//! The data directory, which is one worker's while it lives.
//!
//! ```text
//! lock               locked; says by whom
//! jobs/<fence>/      a job's files while it runs
//! ```

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use kiln_core::farm::Fence;
use rustix::fs::FlockOperation;

/// A line about who has it is no longer.
const WHO: u64 = 256;

/// The directory, locked.
pub(super) struct Directory {
    jobs: PathBuf,
    _lock: File,
}

impl Directory {
    /// Takes it for this process and removes what dead ones left.
    pub fn take(path: &Path) -> anyhow::Result<Self> {
        let private = |path: &Path| {
            let mut builder = DirBuilder::new();
            let made = builder.recursive(true).mode(0o700).create(path);
            made.with_context(|| format!("{} can't be made", path.display()))
        };
        private(path)?;
        let lock = lock(&path.join("lock"))?;
        let jobs = path.join("jobs");
        match std::fs::remove_dir_all(&jobs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{} can't be cleared", jobs.display()));
            }
            _ => private(&jobs)?,
        }
        Ok(Self { jobs, _lock: lock })
    }

    /// An empty directory for a job.
    pub fn job(&self, fence: Fence) -> std::io::Result<JobDirectory> {
        let made = JobDirectory(self.jobs.join(fence.to_string()));
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(made.guest())?;
        private.create(made.artifacts())?;
        Ok(made)
    }
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("{} can't be opened", path.display()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut who = String::new();
            // Its first moments are the only ones in which nothing is there.
            let _ = file.take(WHO).read_to_string(&mut who);
            let who = who.trim();
            bail!(
                "another worker{}{who} has {}; give this one a directory of its own",
                if who.is_empty() { "" } else { ", " },
                path.parent().unwrap_or(path).display()
            );
        }
        Err(error) => {
            return Err(error).with_context(|| format!("{} can't be locked", path.display()));
        }
    }
    file.set_len(0)?;
    writeln!(file, "process {}", std::process::id())?;
    Ok(file)
}

/// A job's files. They go when this is dropped.
pub(super) struct JobDirectory(PathBuf);

impl JobDirectory {
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// For its guest.
    pub fn guest(&self) -> PathBuf {
        self.0.join("guest")
    }

    pub fn artifacts(&self) -> PathBuf {
        self.0.join("artifacts")
    }
}

impl Drop for JobDirectory {
    fn drop(&mut self) {
        // What can't be removed now is when the next worker starts here.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_worker_is_refused_by_the_name_of_the_first_until_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Directory::take(dir.path()).unwrap();
        let job = first.job(Fence(3)).unwrap();
        assert!(job.guest().is_dir() && job.artifacts().is_dir());
        let Err(error) = Directory::take(dir.path()) else {
            panic!("two have it");
        };
        let me = format!("process {}", std::process::id());
        assert!(error.to_string().contains(&me), "{error}");
        std::mem::forget(job);
        drop(first);
        let _second = Directory::take(dir.path()).unwrap();
        assert!(!dir.path().join("jobs/3").exists());
    }
}
