//! Directories that are locked for as long as the process that made them
//! lives, by which others know that it does.
//!
//! One is made under a name of its own and gets its real one when it is locked,
//! so that nobody takes it for a dead one.

use std::{
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::FlockOperation;

/// The file that is locked.
pub const LOCK: &str = "lock";
/// What the names of those begin with whose making has not ended.
const UNFINISHED: &str = ".new-";
/// How long that takes at the most, on any host.
const MAKING: Duration = Duration::from_mins(1);

/// A directory of this process.
pub struct LockedDir {
    path: PathBuf,
    _lock: File,
}

impl LockedDir {
    /// Makes one, private to the user, with this directory in it.
    ///
    /// # Errors
    /// When the file system says no; the error names the parent.
    pub fn create(parent: &Path, name: &str, inner: &str) -> io::Result<Self> {
        let made = || {
            let mut private = DirBuilder::new();
            private.recursive(true).mode(0o700);
            let unfinished = parent.join(format!("{UNFINISHED}{name}"));
            private.create(unfinished.join(inner))?;
            let lock = File::create(unfinished.join(LOCK))?;
            // Whoever looks whether it is locked holds it for a moment.
            rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
            let path = parent.join(name);
            std::fs::rename(&unfinished, &path)?;
            Ok(Self { path, _lock: lock })
        };
        made().map_err(|error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", parent.display()))
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether a directory was never finished, be it dead or not.
pub fn is_unfinished(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED))
}

/// Whether the process that made a directory lives.
pub fn lives(path: &Path) -> bool {
    // Its lock is left alone: it may not be locked yet.
    if is_unfinished(path) && is_young(path) {
        return true;
    }
    File::open(path.join(LOCK))
        .is_ok_and(|lock| rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_err())
}

fn is_young(path: &Path) -> bool {
    let modified = path.metadata().and_then(|meta| meta.modified());
    // A time to come is one of a clock that was set back.
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < MAKING))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_directory_lives_as_long_as_its_maker() {
        let parent = tempfile::tempdir().unwrap();
        let dir = LockedDir::create(parent.path(), "one", "inner").unwrap();
        let path = dir.path().to_owned();
        assert!(path.join("inner").is_dir() && lives(&path));
        drop(dir);
        assert!(!lives(&path));
    }

    #[test]
    fn one_that_is_being_made_lives_locked_or_not_until_it_is_too_old() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join(".new-1");
        std::fs::create_dir(&path).unwrap();
        assert!(lives(&path), "without a lock");
        let lock = File::create(path.join(LOCK)).unwrap();
        assert!(lives(&path), "not locked yet");
        let dir = File::open(&path).unwrap();
        dir.set_modified(SystemTime::now() - 2 * MAKING).unwrap();
        assert!(!lives(&path), "of a process that was killed");
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
        assert!(lives(&path), "of one that was held up");
    }
}
