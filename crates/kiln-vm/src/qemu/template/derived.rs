//! Guests that are kept with a job's packages: templates made of a template.
//!
//! A guest whose job installs something starts from the image's template with
//! a memory of its own. Once all is installed, and before anything else of the
//! job enters, it is frozen; the job goes on in a clone, like those after it.
//!
//! * It is known by the template below it, the owner, the repositories and the
//!   packages.
//! * The QEMU in which strangers' packages were installed has ended before its
//!   memory is sealed and its disk is taken.
//! * It is for today: it is not waited for until it is safe on the disk, so
//!   after the host's next boot nobody starts from it.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    super::{
        QemuGuest, QemuMachine,
        guest::{self, StartedFrom},
        start::{self, Stopwatch},
    },
    About, Boot, DISK, FileStamp, MEMORY, RemovedOnDrop, STATE, Templates, UNFINISHED, directories,
    freeze, key, last_use, memory, note_use, private_dir, read_about, rehearsal,
    restore::{self, Start},
    stamps, write_about,
};
use crate::{
    image::{
        functions::{BootRequest, Functions},
        qcow2,
    },
    machine::{GuestSpec, Kept, Preparation},
    session::Session,
};

/// How old any of them gets, whoever would still start from it.
const OLDEST: Duration = Duration::from_hours(7 * 24);
/// How many are kept.
const KEPT: usize = 16;
/// How much space all of them may take, in bytes.
const SPACE: u64 = 8 << 30;
/// How much must be left on the disk after one more, in bytes.
const LEFT: u64 = 2 << 30;

/// What is known of one besides its files.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Derived {
    /// The name of the template below it.
    base: String,
    /// The files of that: made anew, it is another one.
    base_files: Vec<FileStamp>,
    /// In which boot of the host it was made.
    host_boot: String,
    /// When, in seconds since 1970.
    made: u64,
}

impl Derived {
    /// One from the future is as old as can be.
    fn age(&self) -> Duration {
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(self.made);
        made.elapsed().unwrap_or(Duration::MAX)
    }
}

/// One that a guest can be started from.
struct Found {
    dir: PathBuf,
    age: Duration,
}

/// What a guest must know to be kept.
pub(in super::super) struct Keepable {
    machine: QemuMachine,
    templates: Templates,
    functions: Functions,
    request: BootRequest,
    size: u64,
    spec: GuestSpec,
    /// The template that it was started from.
    base: PathBuf,
    /// The name of what is made.
    name: String,
    memory: Arc<File>,
}

impl Templates {
    /// Starts a guest whose job installs something: from where that is
    /// installed, or else so that it can be kept. `None`: from the image's
    /// template, then.
    pub(super) async fn start_prepared(
        &self,
        boot: &Boot<'_>,
        base: &Path,
        preparation: &Preparation,
    ) -> Result<Option<Arc<QemuGuest>>, restore::Failed> {
        self.tidy_derived();
        let name = name_of(base, preparation);
        if !preparation.fresh
            && let Some(found) = self.find(base, &name, preparation.max_age)
        {
            let start = Start {
                template: &found.dir,
                base: Some(base),
                own_memory: None,
            };
            note_use(&found.dir);
            match restore::guest(boot, start, StartedFrom::Prepared(found.age)).await {
                Ok(guest) => return Ok(Some(guest)),
                Err(restore::Failed::Launch(reason)) => {
                    return Err(restore::Failed::Launch(reason));
                }
                Err(restore::Failed::Revive(reason)) => {
                    tracing::warn!(
                        "a template with packages failed, they are installed again: {reason}"
                    );
                    let _ = fs::remove_dir_all(&found.dir);
                }
            }
        }
        if !self.has_room(&boot.spec.dir) {
            return Ok(None);
        }
        let path = base.join(MEMORY);
        let memory = tokio::task::spawn_blocking(move || memory::load_own(&path)).await;
        let memory = memory.map_err(io::Error::other).flatten();
        let memory = memory.map_err(|error| restore::Failed::Launch(error.to_string()))?;
        let memory = Arc::new(memory);
        let keepable = Keepable {
            machine: boot.machine.clone(),
            templates: self.clone(),
            functions: boot.functions.clone(),
            request: boot.request.clone(),
            size: boot.size,
            spec: boot.spec.clone(),
            base: base.to_owned(),
            name,
            memory: Arc::clone(&memory),
        };
        let start = Start {
            template: base,
            base: None,
            own_memory: Some(memory),
        };
        let from = StartedFrom::Keepable(std::sync::Mutex::new(Some(Box::new(keepable))));
        restore::guest(boot, start, from).await.map(Some)
    }

    fn find(&self, base: &Path, name: &str, max_age: Duration) -> Option<Found> {
        let dir = self.dir.join(name);
        let about = read_about(&dir)?;
        let derived = about.derived.as_ref()?;
        let age = derived.age();
        let good = age < max_age
            && derived.host_boot == host_boot()
            && stamps(&dir).is_ok_and(|stamps| stamps == about.files)
            && stamps(base).is_ok_and(|stamps| stamps == derived.base_files);
        good.then_some(Found { dir, age })
    }

    /// Whether it is worth a try to keep one more.
    fn has_room(&self, dir: &Path) -> bool {
        let has_room = |path: &Path| {
            let stat = rustix::fs::statvfs(path);
            stat.is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) > LEFT)
        };
        has_room(&self.dir) && has_room(dir)
    }

    /// Removes those that nobody can start from any more, and those that were
    /// not used for the longest time while there are too many.
    pub(super) fn tidy_derived(&self) {
        let mut kept = Vec::new();
        for dir in directories(&self.dir) {
            let Some(about) = read_about(&dir) else {
                continue;
            };
            let Some(derived) = &about.derived else {
                continue;
            };
            let base = stamps(&self.dir.join(&derived.base));
            let whole = base.is_ok_and(|base| base == derived.base_files);
            if whole && derived.host_boot == host_boot() && derived.age() < OLDEST {
                kept.push((last_use(&dir), space(&dir), dir));
            } else {
                let _ = fs::remove_dir_all(dir);
            }
        }
        kept.sort();
        let mut taken: u64 = kept.iter().map(|(_, space, _)| space).sum();
        let mut count = kept.len();
        for (_, space, dir) in kept {
            if count <= KEPT && taken <= SPACE {
                break;
            }
            let _ = fs::remove_dir_all(dir);
            taken = taken.saturating_sub(space);
            count -= 1;
        }
    }
}

impl Keepable {
    /// Freezes this guest and starts another one from there.
    pub async fn keep(self: Box<Self>, guest: &QemuGuest) -> Kept {
        let mut watch = Stopwatch::start();
        let work = match self.work() {
            Ok(work) => work,
            Err(error) => {
                tracing::info!("the guest is not kept with its packages: {error}");
                return Kept::Not;
            }
        };
        let frozen = self.freeze(guest, &work.dir.0).await;
        watch.lap("kept: state");
        let login = match frozen {
            Ok(login) => login,
            Err(reason) => {
                tracing::warn!("the guest is not kept with its packages: {reason}");
                let continued = guest.running().qmp.execute("cont", json!({})).await;
                return continued.map_or(Kept::Lost, |_| Kept::Not);
            }
        };
        guest.running().stop().await;
        // The next guest has one at the same place.
        let _ = fs::remove_file(guest::control_path(&self.spec.dir));
        let this = Arc::new(*self);
        let (storing, dir) = (Arc::clone(&this), work.dir.0.clone());
        let stored = tokio::task::spawn_blocking(move || storing.store(&dir, login)).await;
        let stored = stored.map_err(io::Error::other).flatten();
        watch.lap("kept: memory, disk");
        let gone_on = match stored {
            Ok(dir) => this.go_on(&dir).await,
            Err(error) => Err(error.to_string()),
        };
        drop(work);
        match gone_on {
            Ok(guest) => Kept::As(Box::new(guest)),
            Err(reason) => {
                tracing::warn!("the guest could not be kept with its packages: {reason}");
                let _ = fs::remove_file(start::overlay_path(&this.spec.dir));
                Kept::Lost
            }
        }
    }

    /// Whether what was frozen has room. How much that is, nobody knew before.
    fn fits(&self) -> bool {
        let memory = self
            .memory
            .metadata()
            .map_or(u64::MAX, |meta| meta.blocks() * 512);
        let disk = fs::metadata(start::overlay_path(&self.spec.dir));
        let disk = disk.map_or(u64::MAX, |meta| meta.blocks() * 512);
        let wanted = memory.saturating_add(disk);
        let free = rustix::fs::statvfs(&self.templates.dir);
        let free = free.map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        wanted <= SPACE && wanted.saturating_add(LEFT) <= free
    }

    /// A directory to make it in; not while somebody else does.
    fn work(&self) -> io::Result<Work> {
        let lock = File::create(self.templates.lock_path(&self.name))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        self.templates.remove_dead();
        let work = self
            .templates
            .dir
            .join(format!("{UNFINISHED}{}", self.name));
        let _ = fs::remove_dir_all(&work);
        private_dir(&start::machine_dir(&work))?;
        Ok(Work {
            dir: RemovedOnDrop(work),
            _lock: lock,
        })
    }

    /// Writes the state of the devices; gives what a login depends on.
    async fn freeze(&self, guest: &QemuGuest, work: &Path) -> Result<Option<String>, String> {
        let session = guest.session();
        let login = match &*session {
            Session::Agent(agent) => rehearsal::login_now(agent, guest.running()).await?,
            Session::Ssh(session) => {
                session.close().await;
                None
            }
        };
        match freeze::save(&guest.running().qmp, work).await? {
            Some(unsuited) => Err(unsuited.to_owned()),
            None if !self.fits() => Err("there is too little space".to_owned()),
            None => Ok(login),
        }
    }

    /// Puts everything where it belongs; gives the directory.
    fn store(&self, work: &Path, login: Option<String>) -> io::Result<PathBuf> {
        memory::seal(&self.memory)?;
        memory::store_soon(&self.memory, &work.join(MEMORY))?;
        let layer = start::overlay_path(&self.spec.dir);
        qcow2::inspect_layer(&layer, &self.base.join(DISK)).map_err(io::Error::other)?;
        take(&layer, &work.join(DISK))?;
        let below = read_about(&self.base).ok_or(io::ErrorKind::NotFound)?;
        let base = self.base.file_name().unwrap_or_default();
        let made = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let about = About {
            image: below.image,
            digest: below.digest,
            files: stamps(work)?,
            login,
            derived: Some(Derived {
                base: base.to_string_lossy().into_owned(),
                base_files: stamps(&self.base)?,
                host_boot: host_boot(),
                made: made.as_secs(),
            }),
        };
        write_about(work, &about)?;
        let dir = self.templates.dir.join(&self.name);
        let _ = fs::remove_dir_all(&dir);
        fs::rename(work, &dir)?;
        let memory = self.memory.as_fd().try_clone_to_owned()?;
        self.templates.loaded.put(&dir.join(MEMORY), memory)?;
        self.templates.tidy_derived();
        Ok(dir)
    }

    async fn go_on(&self, dir: &Path) -> Result<Arc<QemuGuest>, String> {
        let boot = Boot {
            templates: &self.templates,
            machine: &self.machine,
            functions: &self.functions,
            request: &self.request,
            size: self.size,
            spec: &self.spec,
        };
        let start = Start {
            template: dir,
            base: Some(&self.base),
            own_memory: None,
        };
        let guest = restore::guest(&boot, start, StartedFrom::Prepared(Duration::ZERO)).await;
        guest.map_err(|(restore::Failed::Launch(reason) | restore::Failed::Revive(reason))| reason)
    }
}

/// A directory in which one is made, for as long as its lock is held.
struct Work {
    dir: RemovedOnDrop,
    _lock: File,
}

/// Every word with its length, so that no two lists look the same.
fn name_of(base: &Path, preparation: &Preparation) -> String {
    let mut hash = Sha256::new();
    let mut word = |word: &[u8]| {
        hash.update(word.len().to_be_bytes());
        hash.update(word);
    };
    word(base.file_name().unwrap_or_default().as_encoded_bytes());
    word(preparation.owner.as_bytes());
    word(&preparation.repositories.len().to_be_bytes());
    for (name, source) in &preparation.repositories {
        word(name.as_bytes());
        word(source.as_bytes());
    }
    for package in &preparation.packages {
        word(package.as_bytes());
    }
    key::short(hash)
}

fn host_boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// What a directory's files take on the disk, in bytes.
fn space(dir: &Path) -> u64 {
    let files = [MEMORY, STATE, DISK].map(|name| fs::metadata(dir.join(name)));
    files.iter().flatten().map(|meta| meta.blocks() * 512).sum()
}

/// Moves a file, also to another file system.
fn take(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            memory::copy_sparse(&File::open(from)?, &File::create_new(to)?)?;
            fs::remove_file(from)
        }
        moved => moved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_kept_by_owner_repositories_and_packages() {
        let preparation = |owner: &str, repositories: &[(&str, &str)], packages: &[&str]| {
            let own = |word: &&str| (*word).to_owned();
            name_of(
                Path::new("/templates/base"),
                &Preparation {
                    owner: owner.into(),
                    repositories: repositories
                        .iter()
                        .map(|(name, source)| (own(name), own(source)))
                        .collect(),
                    packages: packages.iter().map(own).collect(),
                    max_age: Duration::from_secs(1),
                    fresh: false,
                },
            )
        };
        let names = [
            preparation("a", &[], &["jq"]),
            preparation("b", &[], &["jq"]),
            preparation("a", &[("x", "y")], &["jq"]),
            preparation("a", &[], &["x", "y", "jq"]),
            preparation("a", &[], &["j", "q"]),
            preparation("aj", &[], &["q"]),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{index}");
        }
    }
}
