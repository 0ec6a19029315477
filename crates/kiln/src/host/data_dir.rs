//! A directory that one process at a time may use.

use std::{
    fs::{DirBuilder, File},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;

use crate::exit::Failure;

/// The file that is locked; it names who locked it.
const LOCK: &str = "lock";

/// A data directory of this process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Takes it; it is made, for its owner alone.
    ///
    /// # Errors
    /// When another process has it, which is named, or it can't be made.
    pub fn take(path: &Path) -> Result<Self, Failure> {
        let fail = |error: io::Error| Failure::host(format!("{}: {error}", path.display()));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(fail)?;
        let mut lock = open(path).map_err(fail)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(taken(path, &mut lock)),
            Err(error) => return Err(fail(error.into())),
        }
        // Who it was before says nothing any more.
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(fail)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn open(dir: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join(LOCK))
}

fn taken(path: &Path, lock: &mut File) -> Failure {
    let mut name = String::new();
    let read = lock
        .rewind()
        .and_then(|()| lock.take(32).read_to_string(&mut name));
    let who = match (read, name.trim()) {
        (Ok(_), pid) if !pid.is_empty() => format!("process {pid}"),
        _ => "another process".to_owned(),
    };
    Failure::host(format!(
        "{} is in use by {who}; stop that one, or name another directory with --data",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_refused_and_told_who_has_it_and_the_next_may_have_it() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("new/data");
        let first = DataDir::take(&dir).unwrap();
        let error = DataDir::take(&dir).unwrap_err().message;
        let me = format!("is in use by process {}", std::process::id());
        assert!(error.contains(&me), "{error}");
        drop(first);
        assert!(DataDir::take(&dir).is_ok());
    }
}
