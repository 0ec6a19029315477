//! A cgroup for each guest: what QEMU, its helper and its uplink take together,
//! where the host lets kiln make cgroups.
//!
//! ```text
//!  version 1                         version 2 (a delegated subtree)
//!  memory/…/of kiln                  of kiln, empty: its controllers are passed on
//!  └── kiln-PID-N                    ├── kiln.self     kiln itself
//!  pids/…/of kiln                    └── kiln-PID-N    a guest
//!  └── kiln-PID-N
//! ```
//!
//! * Below the cgroup that kiln is in, so whatever limits kiln limits its
//!   guests too.
//! * Version 2 has no processes in a cgroup that passes controllers on: kiln
//!   moves into a leaf. That needs a cgroup in which kiln is alone, as
//!   `systemd-run --scope -p Delegate=yes` makes one; other processes are never
//!   moved (docs/decisions: limits).
//! * Each is locked for as long as its maker lives. What a dead one left is
//!   removed by the next who makes one beside it.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::fs::{Access, FlockOperation};

/// What the names of all of ours begin with.
const PREFIX: &str = "kiln-";
/// Where kiln itself is under version 2.
const LEAF: &str = "kiln.self";
/// What processor time is counted in, in microseconds; the kernel's default.
const PERIOD: u64 = 100_000;
/// More than can be in use at once.
const MAX_NAMES: u32 = 100_000;

/// What the processes of one cgroup may take together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes; none of it is swapped.
    pub memory: u64,
    /// Processes and threads.
    pub processes: u32,
    /// Processor time: this many processors' worth.
    pub processors: u32,
}

/// A cgroup to be made.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where.
    pub cgroups: Cgroups,
    /// With which limits.
    pub limits: Limits,
}

/// A place where cgroups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    version: Version,
    parents: Vec<Parent>,
}

/// The kernel's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller.
    One,
    /// One for all.
    Two,
}

/// A directory below which they are made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parent {
    dir: PathBuf,
    controllers: Vec<Controller>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controller {
    Memory,
    Pids,
    Cpu,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }
}

impl Cgroups {
    /// Looks where cgroups can be made for this process's guests, and moves
    /// this process where version 2 wants it. To be asked once, and before
    /// anything is started that is to have one.
    ///
    /// # Errors
    /// Why none can be made; a sentence for the operator.
    pub fn find() -> Result<Self, String> {
        let read =
            |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let own = read("/proc/self/cgroup")?;
        let mounts = read("/proc/self/mountinfo")?;
        if let Some(dir) = directory(&own, &mounts, None)
            && controllers(&dir, "cgroup.controllers").contains(&Controller::Memory)
        {
            return Self::version_two(&dir);
        }
        Self::version_one(&own, &mounts)
    }

    /// Which of the kernel's interfaces this is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// What is limited: `memory, pids, cpu`.
    #[must_use]
    pub fn limited(&self) -> String {
        let names = self.parents.iter().flat_map(|parent| &parent.controllers);
        let names: Vec<&str> = names.map(|controller| controller.name()).collect();
        names.join(", ")
    }

    fn version_one(own: &str, mounts: &str) -> Result<Self, String> {
        let mut parents: Vec<Parent> = Vec::new();
        for controller in Controller::ALL {
            let Some(dir) = directory(own, mounts, Some(controller.name())) else {
                match controller {
                    Controller::Cpu => continue,
                    _ => {
                        let name = controller.name();
                        return Err(format!(
                            "this host has no cgroups with the controller {name}"
                        ));
                    }
                }
            };
            writable(&dir)?;
            match parents.iter_mut().find(|parent| parent.dir == dir) {
                Some(parent) => parent.controllers.push(controller),
                None => parents.push(Parent {
                    dir,
                    controllers: vec![controller],
                }),
            }
        }
        Ok(Self {
            version: Version::One,
            parents,
        })
    }

    fn version_two(own: &Path) -> Result<Self, String> {
        // We, or who started us, moved there before.
        let dir = match own.parent() {
            Some(parent) if own.file_name().is_some_and(|name| name == LEAF) => parent,
            _ => own,
        };
        writable(dir)?;
        let there = controllers(dir, "cgroup.controllers");
        if !there.contains(&Controller::Pids) {
            return Err("the controller pids is not passed on to kiln's cgroup".into());
        }
        let passed_on = controllers(dir, "cgroup.subtree_control");
        if !there
            .iter()
            .all(|controller| passed_on.contains(controller))
        {
            make_room(dir, &there).map_err(|error| match error.raw_os_error() {
                Some(busy) if busy == rustix::io::Errno::BUSY.raw_os_error() => {
                    "other processes are in kiln's own cgroup".to_owned()
                }
                _ => format!("kiln's own cgroup can't be divided: {error}"),
            })?;
        }
        let dir = dir.to_owned();
        let parents = vec![Parent {
            dir,
            controllers: there,
        }];
        Ok(Self {
            version: Version::Two,
            parents,
        })
    }

    /// Makes one, after removing what dead ones left.
    pub(crate) fn create(&self, limits: &Limits) -> io::Result<Cgroup> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        for parent in &self.parents {
            remove_dead(&parent.dir);
        }
        for _ in 0..MAX_NAMES {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("{PREFIX}{}-{number}", std::process::id());
            if let Some(made) = self.create_as(&name)? {
                made.limit(self, limits)?;
                return Ok(made);
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// `None`: somebody else has that name, or took what nobody held yet for
    /// dead.
    fn create_as(&self, name: &str) -> io::Result<Option<Cgroup>> {
        let mut made = Cgroup {
            version: self.version,
            dirs: Vec::new(),
        };
        for parent in &self.parents {
            let dir = parent.dir.join(name);
            match fs::create_dir(&dir) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                Err(error) => return Err(error),
            }
            let Some(lock) = lock(&dir) else {
                return Ok(None);
            };
            let still = fs::metadata(&dir).map(|meta| meta.ino()).ok();
            if still != Some(lock.metadata()?.ino()) {
                return Ok(None);
            }
            made.dirs.push((dir, lock));
        }
        Ok(Some(made))
    }
}

/// Removed when dropped, if nothing lives in it any more; else by who makes the
/// next one.
#[derive(Debug)]
pub(crate) struct Cgroup {
    version: Version,
    dirs: Vec<(PathBuf, File)>,
}

impl Cgroup {
    /// Its directories, into which a process goes by itself ([`join`]).
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.dirs.iter().map(|(dir, _)| dir.as_path())
    }

    /// Puts a process into it, with what that starts from now on.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        self.dirs().try_for_each(|dir| enter(dir, pid))
    }

    /// Whether the kernel has ended a process for the memory that it took.
    pub fn out_of_memory(&self) -> bool {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        self.dirs().any(|dir| {
            let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
            let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
            count.is_some_and(|count| count.trim() != "0")
        })
    }

    fn limit(&self, cgroups: &Cgroups, limits: &Limits) -> io::Result<()> {
        for ((dir, _), parent) in self.dirs.iter().zip(&cgroups.parents) {
            for controller in &parent.controllers {
                set(dir, self.version, *controller, limits)?;
            }
        }
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for (dir, _) in &self.dirs {
            if let Err(error) = fs::remove_dir(dir) {
                tracing::debug!(%error, "{} is left to the next start", dir.display());
            }
        }
    }
}

/// Moves this process into the cgroup of this directory.
pub(crate) fn join(dir: &Path) -> io::Result<()> {
    // Not a number of a process: "myself", in whatever pid namespace.
    enter(dir, 0)
}

fn enter(dir: &Path, pid: u32) -> io::Result<()> {
    fs::write(dir.join("cgroup.procs"), pid.to_string())
}

fn set(dir: &Path, version: Version, controller: Controller, limits: &Limits) -> io::Result<()> {
    let write = |file: &str, value: String| fs::write(dir.join(file), value);
    let time = PERIOD * u64::from(limits.processors);
    match (controller, version) {
        (Controller::Memory, Version::One) => {
            write("memory.limit_in_bytes", limits.memory.to_string())?;
            // Memory and swap together.
            or_absent(write(
                "memory.memsw.limit_in_bytes",
                limits.memory.to_string(),
            ))
        }
        (Controller::Memory, Version::Two) => {
            write("memory.max", limits.memory.to_string())?;
            or_absent(write("memory.swap.max", "0".into()))
        }
        (Controller::Pids, _) => write("pids.max", limits.processes.to_string()),
        (Controller::Cpu, Version::One) => {
            write("cpu.cfs_period_us", PERIOD.to_string())?;
            match write("cpu.cfs_quota_us", time.to_string()) {
                // One above has less, and that counts.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
                written => written,
            }
        }
        (Controller::Cpu, Version::Two) => write("cpu.max", format!("{time} {PERIOD}")),
    }
}

/// Swap is counted only where the kernel was told to.
fn or_absent(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        written => written,
    }
}

/// Passes these controllers on to what is below a cgroup of version 2, which
/// must have no processes then: this one moves into a leaf.
fn make_room(dir: &Path, controllers: &[Controller]) -> io::Result<()> {
    let leaf = dir.join(LEAF);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let words: Vec<String> = controllers
        .iter()
        .map(|controller| format!("+{}", controller.name()))
        .collect();
    let made =
        join(&leaf).and_then(|()| fs::write(dir.join("cgroup.subtree_control"), words.join(" ")));
    if made.is_err() {
        // Back to where the others are.
        let _ = join(dir).and_then(|()| fs::remove_dir(&leaf));
    }
    made
}

/// Removes those of ours that nobody holds and nothing lives in.
fn remove_dead(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if ours && let Some(_lock) = lock(&entry.path()) {
            // Busy: its last process is still ending.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Held until the file is closed; `None` where somebody else holds it.
fn lock(dir: &Path) -> Option<File> {
    let file = File::open(dir).ok()?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

fn writable(dir: &Path) -> Result<(), String> {
    let may = rustix::fs::access(dir, Access::WRITE_OK);
    may.map_err(|error| format!("kiln may not make cgroups below its own: {error}"))
}

/// Those of ours that a file of version 2 names.
fn controllers(dir: &Path, file: &str) -> Vec<Controller> {
    let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
    let named = |controller: &Controller| {
        text.split_whitespace()
            .any(|word| word == controller.name())
    };
    Controller::ALL.into_iter().filter(named).collect()
}

/// Where the cgroup of this process is mounted: that of a controller of version
/// 1, or that of version 2. `own` is `/proc/self/cgroup`, `mounts`
/// `/proc/self/mountinfo`.
fn directory(own: &str, mounts: &str, controller: Option<&str>) -> Option<PathBuf> {
    // `4:memory:/user.slice`, `0::/user.slice`
    let path = own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (names, path) = rest.split_once(':')?;
        let found = match controller {
            Some(controller) => names.split(',').any(|name| name == controller),
            None => names.is_empty(),
        };
        found.then_some(path)
    })?;
    // `30 24 0:26 /root /mount/point rw shared:9 - cgroup cgroup rw,memory`
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let (system, options) = (kind.next()?, kind.nth(1)?);
        let found = match controller {
            Some(controller) => {
                system == "cgroup" && options.split(',').any(|option| option == controller)
            }
            None => system == "cgroup2",
        };
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let below = Path::new(path).strip_prefix(root).ok()?;
        found.then(|| match below.as_os_str().is_empty() {
            true => PathBuf::from(point),
            false => Path::new(point).join(below),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
29 28 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
31 28 0:28 /docker/1 /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 28 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn the_own_cgroup_is_found_below_what_is_mounted() {
        let own = "5:memory:/docker/1/a\n3:cpu,cpuacct:/\n0::/init.scope\n";
        let found = |controller| directory(own, HYBRID, controller);
        let at = |path: &str| Some(PathBuf::from(path));
        assert_eq!(found(Some("memory")), at("/sys/fs/cgroup/memory/a"));
        assert_eq!(found(Some("cpu")), at("/sys/fs/cgroup/cpu"));
        assert_eq!(found(None), at("/sys/fs/cgroup/unified/init.scope"));
        assert_eq!(found(Some("pids")), None);
        // What is mounted is not above ours.
        assert_eq!(directory("5:memory:/other\n", HYBRID, Some("memory")), None);
    }

    /// Any directory will do for the parts that are not the kernel's.
    fn place() -> (tempfile::TempDir, Cgroups) {
        let dir = tempfile::tempdir().unwrap();
        let parent = Parent {
            dir: dir.path().to_owned(),
            controllers: Vec::new(),
        };
        let cgroups = Cgroups {
            version: Version::Two,
            parents: vec![parent],
        };
        (dir, cgroups)
    }

    const NOTHING: Limits = Limits {
        memory: 0,
        processes: 0,
        processors: 0,
    };

    #[test]
    fn what_a_dead_kiln_left_goes_and_what_a_living_one_uses_stays() {
        let (dir, cgroups) = place();
        fs::create_dir(dir.path().join("kiln-1-0")).unwrap();
        fs::create_dir(dir.path().join("others")).unwrap();
        let one = cgroups.create(&NOTHING).unwrap();
        let two = cgroups.create(&NOTHING).unwrap();
        assert!(!dir.path().join("kiln-1-0").exists());
        assert!(dir.path().join("others").exists());
        assert!(one.dirs().chain(two.dirs()).all(Path::is_dir));
        drop((one, two));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn kilns_that_start_at_once_take_nothing_from_each_other() {
        let (dir, cgroups) = place();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let made = cgroups.create(&NOTHING).unwrap();
                        assert!(made.dirs().all(Path::is_dir));
                    }
                });
            }
        });
        // What one lost to another before it held it, the next one removes.
        remove_dead(dir.path());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn memory_that_ran_out_is_told_by_the_kernels_count() {
        let (_dir, cgroups) = place();
        let made = cgroups.create(&NOTHING).unwrap();
        let events = made.dirs().next().unwrap().join("memory.events");
        fs::write(&events, "max 12\noom 1\noom_kill 0\n").unwrap();
        assert!(!made.out_of_memory());
        fs::write(&events, "max 12\noom 1\noom_kill 1\n").unwrap();
        assert!(made.out_of_memory());
        fs::remove_file(events).unwrap();
    }
}
