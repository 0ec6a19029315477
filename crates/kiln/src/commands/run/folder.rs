//! The folder of a run: logs, artifacts, and what its guest needs while it
//! lives.
//!
//! ```text
//! runs/20261120-104501-4242/
//!     lock             locked while the run lives
//!     log              the job's log
//!     build/log        the log of task build
//!     artifacts/
//!     .guest/          sockets, uploads; gone when the run is
//!         machine/     the disk; all of this that QEMU sees
//! ```
//!
//! A run that was killed leaves `.guest` behind; the next one clears it. The
//! newest [`KEPT`] runs stay.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use async_trait::async_trait;
use kiln_worker::{Event, LogId, Outcome, ReportError, Reporter};
use tokio::sync::Mutex;

use crate::{
    exit::Failure,
    host::locked::{self, LOCK, LockedDir},
    ui::{self, display::Display},
};

/// How many runs stay.
const KEPT: usize = 20;
const SCRATCH: &str = ".guest";
const ARTIFACTS: &str = "artifacts";

/// A run's folder, locked.
pub struct Folder {
    dir: LockedDir,
    /// Whether there is anything in it for anybody.
    used: bool,
}

impl Folder {
    /// Makes a new one, private to the user.
    pub fn create(runs: &Path) -> Result<Self, Failure> {
        let now = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
        let name = format!("{now}-{}", std::process::id());
        let dir = LockedDir::create(runs, &name, SCRATCH)
            .map_err(|error| Failure::host(format!("the run's folder can't be made: {error}")))?;
        Ok(Self { dir, used: false })
    }

    /// The run begins: its folder stays.
    pub fn keep(&mut self) {
        self.used = true;
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// How `kiln ssh` calls it.
    pub fn name(&self) -> String {
        let name = self.path().file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// For the guest while it lives.
    pub fn scratch(&self) -> PathBuf {
        self.path().join(SCRATCH)
    }

    /// For what the run keeps.
    pub fn artifacts(&self) -> Result<PathBuf, Failure> {
        let path = self.path().join(ARTIFACTS);
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

/// One that fails before it begins takes none of the places of those that did.
impl Drop for Folder {
    fn drop(&mut self) {
        let excess = if self.used {
            self.scratch()
        } else {
            self.path().to_owned()
        };
        let _ = std::fs::remove_dir_all(excess);
    }
}

/// Clears what dead runs left and removes all but the newest.
pub fn tidy(runs: &Path) {
    let mut dead: Vec<PathBuf> = Vec::new();
    let mut alive = 0;
    for entry in std::fs::read_dir(runs).into_iter().flatten().flatten() {
        let path = entry.path();
        if locked::lives(&path) {
            alive += 1;
        } else if locked::is_unfinished(&path) {
            let _ = std::fs::remove_dir_all(path);
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

    async fn write(&self, log: &LogId, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.files.lock().await;
        let file = match files.entry(log.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(open(&self.run, log)?),
        };
        file.write_all(bytes)
    }
}

#[async_trait]
impl Reporter for Recorder {
    async fn event(&self, event: Event) -> Result<(), ReportError> {
        self.display.event(&event).await;
        Ok(())
    }

    async fn append(&self, log: &LogId, bytes: &[u8]) -> Result<(), ReportError> {
        self.write(log, bytes).await?;
        let at = self.started.elapsed();
        self.display.append(at, log, bytes).await;
        Ok(())
    }

    async fn narrate(&self, log: &LogId, bytes: &[u8]) -> Result<(), ReportError> {
        self.write(log, bytes).await?;
        let at = self.started.elapsed();
        self.display.narrate(at, log, bytes).await;
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
        let from = folder.path().join(ARTIFACTS).join(&artifact.file);
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
    fn a_run_that_never_began_leaves_nothing() {
        let runs = tempfile::tempdir().unwrap();
        let folder = Folder::create(runs.path()).unwrap();
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
        let mut folder = Folder::create(runs.path()).unwrap();
        folder.keep();
        drop(folder);
        assert!(path.is_dir() && !path.join(SCRATCH).exists());
    }

    #[test]
    fn a_folder_that_is_being_made_is_left_alone() {
        let runs = tempfile::tempdir().unwrap();
        let making = runs.path().join(".new-20200101-000000-1");
        std::fs::create_dir_all(making.join(SCRATCH)).unwrap();
        File::create(making.join(LOCK)).unwrap();
        for number in 0..30 {
            std::fs::create_dir_all(runs.path().join(format!("20300101-0000{number:02}-1")))
                .unwrap();
        }
        tidy(runs.path());
        assert!(making.join(SCRATCH).is_dir());
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
