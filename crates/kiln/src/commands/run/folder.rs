//! The folder of a run: logs, artifacts, and what its guest needs while it
//! lives.
//!
//! ```text
//! runs/20261120-104501-4242/
//!     lock             locked while the run lives
//!     log              the job's log
//!     build/log        the log of task build
//!     artifacts/
//!     .guest/          disk, sockets, uploads; gone when the run is
//! ```
//!
//! A run that was killed leaves `.guest` behind; the next one clears it. The
//! newest [`KEPT`] runs stay.

use std::{
    collections::HashMap,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use async_trait::async_trait;
use kiln_worker::{Event, LogId, Outcome, ReportError, Reporter};
use rustix::fs::FlockOperation;
use tokio::sync::Mutex;

use crate::{
    exit::Failure,
    ui::{self, display::Display},
};

/// How many runs stay.
const KEPT: usize = 20;
const LOCK: &str = "lock";
const SCRATCH: &str = ".guest";
const ARTIFACTS: &str = "artifacts";
/// Folders whose making has not ended; never a run.
const UNFINISHED: &str = ".new-";

/// A run's folder, locked.
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes a new one, private to the user.
    pub fn create(runs: &Path) -> Result<Self, Failure> {
        make(runs)
            .map_err(|error| Failure::host(format!("the run's folder can't be made: {error}")))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How `kiln ssh` calls it.
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// For the guest while it lives.
    pub fn scratch(&self) -> PathBuf {
        self.path.join(SCRATCH)
    }

    /// For what the run keeps.
    pub fn artifacts(&self) -> Result<PathBuf, Failure> {
        let path = self.path.join(ARTIFACTS);
        match std::fs::create_dir(&path) {
            Ok(()) => Ok(path),
            Err(error) => Err(Failure::host(format!("{}: {error}", path.display()))),
        }
    }

    /// Removes what only the guest needed.
    pub fn clear_scratch(&self) {
        if let Err(error) = std::fs::remove_dir_all(self.scratch()) {
            tracing::warn!(%error, "the guest's files stay until the next run");
        }
    }
}

/// A run that fails before it has a guest leaves its folder without scratch.
impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.scratch());
    }
}

fn make(runs: &Path) -> io::Result<Folder> {
    let context =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", runs.display()));
    let mut private = DirBuilder::new();
    private.recursive(true).mode(0o700);
    private.create(runs).map_err(context)?;
    let now = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    let name = format!("{now}-{}", std::process::id());
    // Locked before it has its name, so that nobody takes it for a dead one.
    let unfinished = runs.join(format!("{UNFINISHED}{name}"));
    private.create(unfinished.join(SCRATCH)).map_err(context)?;
    let lock = File::create(unfinished.join(LOCK)).map_err(context)?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    let path = runs.join(name);
    std::fs::rename(&unfinished, &path).map_err(context)?;
    Ok(Folder { path, _lock: lock })
}

/// Clears what dead runs left and removes all but the newest.
pub fn tidy(runs: &Path) {
    let mut dead: Vec<PathBuf> = Vec::new();
    let mut alive = 0;
    for entry in std::fs::read_dir(runs).into_iter().flatten().flatten() {
        let path = entry.path();
        if lives(&path) {
            alive += 1;
        } else {
            let _ = std::fs::remove_dir_all(path.join(SCRATCH));
            dead.push(path);
        }
    }
    dead.sort();
    let excess = (dead.len() + alive).saturating_sub(KEPT).min(dead.len());
    for path in dead.iter().take(excess) {
        let _ = std::fs::remove_dir_all(path);
    }
}

/// Whether somebody holds the run's lock. A folder still being made counts as
/// living for a while, whether it has a lock already or not.
fn lives(path: &Path) -> bool {
    let unfinished = path
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED));
    match File::open(path.join(LOCK)) {
        Ok(lock) => rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_err(),
        Err(_) if unfinished => {
            let age = path
                .metadata()
                .and_then(|meta| meta.modified())
                .map(|time| time.elapsed());
            !matches!(age, Ok(Ok(age)) if age.as_secs() > 60)
        }
        Err(_) => false,
    }
}

/// Writes a run's logs and shows them.
pub struct Recorder {
    run: PathBuf,
    files: Mutex<HashMap<LogId, File>>,
    display: Arc<Display>,
    started: Instant,
}

impl Recorder {
    /// Into this folder.
    pub fn new(run: &Path, display: Arc<Display>) -> Self {
        Self {
            run: run.to_owned(),
            files: Mutex::default(),
            display,
            started: Instant::now(),
        }
    }
}

#[async_trait]
impl Reporter for Recorder {
    async fn event(&self, event: Event) -> Result<(), ReportError> {
        self.display.event(&event).await;
        Ok(())
    }

    async fn append(&self, log: &LogId, bytes: &[u8]) -> Result<(), ReportError> {
        let mut files = self.files.lock().await;
        let file = match files.entry(log.clone()) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(open(&self.run, log)?),
        };
        file.write_all(bytes)?;
        drop(files);
        self.display
            .append(self.started.elapsed(), log, bytes)
            .await;
        Ok(())
    }

    /// Nobody else could run this job.
    async fn begun(&self) -> Result<(), ReportError> {
        Ok(())
    }
}

fn open(run: &Path, log: &LogId) -> io::Result<File> {
    let path = log_path(run, log);
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// `log`, and `TASK/log`; a task that is called like a thing of the folder's
/// own has `TASK.task/log`.
fn log_path(run: &Path, log: &LogId) -> PathBuf {
    match log.task() {
        None => run.join("log"),
        Some(task @ ("log" | LOCK | ARTIFACTS)) => run.join(format!("{task}.task")).join("log"),
        Some(task) => run.join(task).join("log"),
    }
}

/// Puts the artifacts where the user asked for them.
pub fn copy_artifacts(folder: &Folder, outcome: &Outcome, dir: &Path) -> Result<(), Failure> {
    for artifact in &outcome.artifacts {
        let from = folder.path.join(ARTIFACTS).join(&artifact.file);
        let to = dir.join(&artifact.file);
        let copied = match to.parent() {
            Some(parent) => {
                std::fs::create_dir_all(parent).and_then(|()| std::fs::copy(&from, &to))
            }
            None => Err(io::ErrorKind::InvalidInput.into()),
        };
        if let Err(error) = copied {
            return Err(Failure::host(format!(
                "the artifact {} could not be put into {}: {error}; it is in {}",
                artifact.path,
                dir.display(),
                from.display()
            )));
        }
        ui::note(&format!("artifact {}", to.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_run_loses_its_scratch_and_a_living_one_nothing() {
        let runs = tempfile::tempdir().unwrap();
        let living = Folder::create(runs.path()).unwrap();
        let dead = runs.path().join("20200101-000000-1");
        std::fs::create_dir_all(dead.join(SCRATCH)).unwrap();
        File::create(dead.join(LOCK)).unwrap();
        tidy(runs.path());
        assert!(living.scratch().is_dir());
        assert!(dead.is_dir() && !dead.join(SCRATCH).exists());
    }

    #[test]
    fn only_the_newest_runs_stay() {
        let runs = tempfile::tempdir().unwrap();
        for number in 0..30 {
            std::fs::create_dir_all(runs.path().join(format!("20200101-0000{number:02}-1")))
                .unwrap();
        }
        tidy(runs.path());
        let mut left: Vec<_> = std::fs::read_dir(runs.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left.len(), KEPT);
        assert_eq!(left[0], "20200101-000010-1");
    }

    #[test]
    fn no_task_can_be_called_like_a_thing_of_the_folder() {
        let run = Path::new("/run");
        for task in ["log", "lock", "artifacts"] {
            let path = log_path(run, &LogId::Task(task.into()));
            assert!(!path.starts_with(run.join(task)), "{task}");
        }
        assert_eq!(
            log_path(run, &LogId::Task("build".into())),
            Path::new("/run/build/log")
        );
    }
}
