//! Templates: guests that were booted once and frozen, so that others start
//! from there in about a second.
//!
//! ```text
//!  image ─ boot ─ quiet ─ freeze ─► memory, state, disk      (once)
//!                                      │ private, read-only
//!                                      ▼
//!  job ──────────────────────► restore ─ login ─ identity ─► guest
//! ```
//!
//! * A template is known by all that it depends on ([`key`]); when any of that
//!   changes it is another one, and the old one goes.
//! * Nothing that a guest does, and nothing that a QEMU does which its guest
//!   took over, changes what the next one starts from: the memory is a sealed
//!   memfd, the disk a layer that is only read.
//! * A template is a shortcut: whatever is wrong with one, the guest is booted
//!   instead.

mod derived;
mod freeze;
mod identity;
mod key;
mod memory;
mod rehearsal;
mod restore;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::{QemuGuest, QemuMachine, guest::StartedFrom, start::Loading};
use crate::{
    image::{
        Image,
        functions::{BootRequest, Functions},
    },
    machine::{GuestSpec, StartError},
};
pub(super) use derived::Keepable;
pub(super) use identity::renew;
use key::Key;
pub(super) use rehearsal::perform as rehearse;

const MEMORY: &str = "memory";
const STATE: &str = "state";
/// Where QEMU writes it while the template is made. The only one that the
/// QEMU of a clone sees.
const DISK: &str = "machine/disk.qcow2";
const ABOUT: &str = "about.json";
/// Being made; the rest of the name is of no meaning.
const UNFINISHED: &str = ".new-";

/// How many templates are kept, of a few hundred megabytes each.
const KEPT: usize = 8;

/// Free space without which no template is begun, in bytes: a guest whose disk
/// runs full while it boots ends in strange ways.
const SPACE: u64 = 512 << 20;

/// When a mark beside the templates is of no use any more.
const FORGOTTEN: Duration = Duration::from_hours(30 * 24);

/// How long no template is made after one failed: each attempt costs a boot.
const PAUSE: Duration = Duration::from_hours(1);

/// How often a template that somebody else makes is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// A directory of templates.
#[derive(Debug, Clone)]
pub struct Templates {
    dir: PathBuf,
    /// The memories of those that were used: guests of one template share it.
    loaded: Arc<memory::Loaded>,
}

/// What a guest is to be started from.
pub(super) struct Boot<'a> {
    pub templates: &'a Templates,
    pub machine: &'a QemuMachine,
    pub functions: &'a Functions,
    pub request: &'a BootRequest,
    /// The disk's, in bytes.
    pub size: u64,
    pub spec: &'a GuestSpec,
}

/// Why there is no guest from a template.
pub(super) enum Failed {
    /// A guest of this image doesn't start at all: booting it once more would
    /// end the same way.
    Start(StartError),
    /// The template is to blame; a sentence for the operator.
    Template(String),
}

impl From<StartError> for Failed {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self::Template(reason)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Template(error.to_string())
    }
}

/// What a template's directory says of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    /// The image and architecture; of each there is one template at a time
    /// for one shape of guest.
    image: String,
    /// The image's version.
    digest: String,
    /// Lengths and times of the files, so that one that was cut short or
    /// changed is not used.
    files: Vec<FileStamp>,
    /// What a login depended on, where kiln's helper waits in the guest: a
    /// digest ([`crate::agent::Agent::login`]).
    login: Option<String>,
    /// Only of those that have a job's packages.
    derived: Option<derived::Derived>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileStamp {
    name: String,
    length: u64,
    modified_ns: u128,
}

impl Templates {
    /// The templates in this directory, which need not exist.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            loaded: Arc::default(),
        }
    }

    /// The memory of a template, which is loaded when it is not yet.
    fn memory(&self, template: &Path) -> Loading {
        let loaded = Arc::clone(&self.loaded);
        let path = template.join(MEMORY);
        tokio::task::spawn_blocking(move || loaded.get(&path))
    }

    /// Starts a guest from a template, which is made when there is none.
    /// `None`: guests of this image can't be frozen.
    ///
    /// # Errors
    /// [`Failed`].
    pub(super) async fn start(&self, boot: &Boot<'_>) -> Result<Option<Arc<QemuGuest>>, Failed> {
        let Some((key, dir)) = self.ready(boot).await? else {
            return Ok(None);
        };
        note_use(&dir);
        let reason = match self.start_from(boot, &dir).await {
            Ok(guest) => return Ok(Some(guest)),
            // Nothing of the template was tried yet.
            Err(restore::Failed::Launch(reason)) => reason,
            Err(restore::Failed::Revive(reason)) => {
                // It is made anew, but not by every run.
                let _ = fs::write(self.dir.join(key.failed()), []);
                let _ = fs::remove_dir_all(&dir);
                reason
            }
        };
        let name = &boot.spec.image.name;
        Err(format!("the template of {name} failed: {reason}").into())
    }

    async fn start_from(
        &self,
        boot: &Boot<'_>,
        dir: &Path,
    ) -> Result<Arc<QemuGuest>, restore::Failed> {
        if let Some(preparation) = &boot.spec.preparation
            && let Some(guest) = self.start_prepared(boot, dir, preparation).await?
        {
            return Ok(guest);
        }
        let start = restore::Start {
            template: dir,
            base: None,
            own_memory: None,
        };
        restore::guest(boot, start, StartedFrom::Template).await
    }

    /// Sees to it that there is a template, if there can be one.
    ///
    /// # Errors
    /// [`Failed`].
    pub(super) async fn prepare(&self, boot: &Boot<'_>) -> Result<(), Failed> {
        self.ready(boot).await.map(drop)
    }

    /// The template, made when there is none. `None`: there can't be one, or
    /// it failed a short time ago.
    async fn ready(&self, boot: &Boot<'_>) -> Result<Option<(Key, PathBuf)>, Failed> {
        let key = Key::of(boot, &self.dir).await?;
        let failed_at = modified(&self.dir.join(key.failed()));
        let lately = failed_at.and_then(|at| at.elapsed().ok());
        if self.dir.join(key.unsuited()).exists() || lately.is_some_and(|age| age < PAUSE) {
            return Ok(None);
        }
        let dir = self.dir.join(key.name());
        let made = is_whole(&dir) || self.make(boot, &key, &dir).await?;
        Ok(made.then_some((key, dir)))
    }

    /// Makes a template, or waits for whoever does. False: it can't be made.
    async fn make(&self, boot: &Boot<'_>, key: &Key, dir: &Path) -> Result<bool, Failed> {
        private_dir(&self.dir)
            .map_err(|error| self.trouble("templates can't be kept in", &error))?;
        self.enough_space()?;
        let lock = File::create(self.lock_path(key.name()));
        let lock = lock.map_err(|error| self.trouble("no lock in", &error))?;
        let asked = SystemTime::now();
        loop {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(LOOK).await,
                Err(error) => return Err(self.trouble("no lock in", &error.into()).into()),
            }
        }
        if is_whole(dir) {
            return Ok(true);
        }
        if self.dir.join(key.unsuited()).exists() {
            return Ok(false);
        }
        let attempt = self.dir.join(key.failed());
        if modified(&attempt).is_some_and(|at| at >= asked) {
            // All who waited would try again, one after the other.
            return Err("another kiln could not make the template".to_owned().into());
        }
        let made = self.make_locked(boot, key, dir).await;
        let _ = match &made {
            Ok(_) => fs::remove_file(attempt),
            Err(_) => fs::write(attempt, []),
        };
        made
    }

    fn enough_space(&self) -> Result<(), String> {
        let free = rustix::fs::statvfs(&self.dir)
            .map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        if free >= SPACE {
            return Ok(());
        }
        Err(format!(
            "{}: {} MiB are free, a template needs {} MiB",
            self.dir.display(),
            free >> 20,
            SPACE >> 20
        ))
    }

    /// A sentence about this directory.
    fn trouble(&self, what: &str, error: &io::Error) -> String {
        format!("{what} {}: {error}", self.dir.display())
    }

    async fn make_locked(&self, boot: &Boot<'_>, key: &Key, dir: &Path) -> Result<bool, Failed> {
        self.remove_dead();
        let work = self.dir.join(format!("{UNFINISHED}{}", key.name()));
        let _ = fs::remove_dir_all(&work);
        private_dir(&work).map_err(|error| self.trouble("no space in", &error))?;
        let work = RemovedOnDrop(work);
        let name = &boot.spec.image.name;
        let why = match dir.exists() {
            true => "'s template here was cut short or changed: making another",
            false => " has no template here yet: making one",
        };
        tracing::warn!("{name}{why}, so that guests start at once");
        let login = match freeze::guest(boot, &work.0).await? {
            freeze::Frozen::Unsuited(reason) => {
                tracing::info!("{} gets no template: {reason}", boot.spec.image.name);
                let marked = fs::write(self.dir.join(key.unsuited()), reason);
                marked.map_err(|error| self.trouble("no mark in", &error))?;
                return Ok(false);
            }
            freeze::Frozen::Whole { login } => login,
        };
        let about = About {
            image: key.image().to_owned(),
            digest: key.digest().to_owned(),
            files: stamps(&work.0)
                .map_err(|error| self.trouble("unreadable template in", &error))?,
            login,
            derived: None,
        };
        self.remove_others(&about);
        let finished = write_about(&work.0, &about).and_then(|()| {
            let _ = fs::remove_dir_all(dir);
            fs::rename(&work.0, dir)
        });
        finished.map_err(|error| self.trouble("the template can't be kept in", &error))?;
        Ok(true)
    }

    /// Removes templates of earlier versions of the same image, and those that
    /// were not used for the longest time when there are too many. Guests that
    /// run on one have its files open.
    fn remove_others(&self, about: &About) {
        let mut others = Vec::new();
        for dir in directories(&self.dir) {
            let Some(other) = read_about(&dir) else {
                continue;
            };
            if other.derived.is_some() {
                continue;
            }
            if other.image == about.image && other.digest != about.digest {
                let _ = fs::remove_dir_all(dir);
            } else {
                others.push((last_use(&dir), dir));
            }
        }
        others.sort();
        let excess = (others.len() + 1).saturating_sub(KEPT);
        for (_, dir) in others.into_iter().take(excess) {
            let _ = fs::remove_dir_all(dir);
        }
        self.tidy_derived();
    }

    /// Removes what makers left that were killed: whoever makes a template
    /// holds its lock. Our own is held by us. Marks of templates that nobody
    /// asked for in a long time go too.
    fn remove_dead(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let age = entry
                .metadata()
                .and_then(|meta| meta.modified())
                .map(|time| time.elapsed());
            if entry.path().is_file() && matches!(age, Ok(Ok(age)) if age > FORGOTTEN) {
                let _ = fs::remove_file(entry.path());
            }
        }
        for dir in directories(&self.dir) {
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            let Some(key) = name.strip_prefix(UNFINISHED) else {
                continue;
            };
            let lock = File::options().write(true).open(self.lock_path(key));
            let alive = lock.is_ok_and(|lock| {
                rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
            });
            if !alive {
                let _ = fs::remove_dir_all(&dir);
            }
        }
    }

    /// The version of an image as it is now, if it can be read.
    pub(super) async fn version(&self, image: &Image) -> Option<String> {
        let (image, cache) = (image.clone(), self.dir.clone());
        let digest = tokio::task::spawn_blocking(move || image.digest_remembered(&cache)).await;
        digest.ok()?.ok()
    }

    fn lock_path(&self, key: &str) -> PathBuf {
        self.dir.join(format!("{key}.lock"))
    }
}

/// A directory in which something is made.
pub(super) struct RemovedOnDrop(pub PathBuf);

impl Drop for RemovedOnDrop {
    fn drop(&mut self) {
        // Gone already when it was made whole.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

fn private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

fn write_about(dir: &Path, about: &About) -> io::Result<()> {
    fs::write(dir.join(ABOUT), serde_json::to_vec(about)?)
}

fn read_about(dir: &Path) -> Option<About> {
    serde_json::from_slice(&fs::read(dir.join(ABOUT)).ok()?).ok()
}

/// The time of the file that says what it is, which each use renews.
fn last_use(dir: &Path) -> Option<SystemTime> {
    modified(&dir.join(ABOUT))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

fn note_use(dir: &Path) {
    let now = File::open(dir.join(ABOUT)).and_then(|about| about.set_modified(SystemTime::now()));
    if let Err(error) = now {
        tracing::debug!(%error, "the template's use is not noted");
    }
}

/// Whether all files are there, as they were made.
fn is_whole(dir: &Path) -> bool {
    match (read_about(dir), stamps(dir)) {
        (Some(about), Ok(stamps)) => about.files == stamps,
        _ => false,
    }
}

fn stamps(dir: &Path) -> io::Result<Vec<FileStamp>> {
    [MEMORY, STATE, DISK]
        .into_iter()
        .map(|name| {
            let meta = fs::metadata(dir.join(name))?;
            let modified = meta.modified()?.duration_since(std::time::UNIX_EPOCH);
            Ok(FileStamp {
                name: name.to_owned(),
                length: meta.len(),
                modified_ns: modified.unwrap_or_default().as_nanos(),
            })
        })
        .collect()
}
