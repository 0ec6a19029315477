//! Directories for guests that belong to no run: those of `kiln image`.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{
    locked::{self, LockedDir},
    paths,
};
use crate::exit::Failure;

/// What a guest's files are in.
const FILES: &str = "files";

/// A private directory that goes when this is dropped. What a process leaves
/// that is killed goes with the next one's start.
pub struct Scratch(LockedDir);

impl Scratch {
    /// An empty one.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn create() -> Result<Self, Failure> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let parent = paths::scratch()?;
        tidy(&parent);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        let made = LockedDir::create(&parent, &name, FILES);
        made.map(Self)
            .map_err(|error| Failure::host(format!("no directory for a guest's files: {error}")))
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.0.path().join(FILES)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next one's start removes what this could not.
        let _ = std::fs::remove_dir_all(self.0.path());
    }
}

/// Clears what dead processes left.
pub fn tidy(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        if !locked::lives(&entry.path()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_process_left_goes_and_what_a_living_one_uses_stays() {
        let parent = tempfile::tempdir().unwrap();
        let living = LockedDir::create(parent.path(), "1-0", FILES).unwrap();
        let dead = parent.path().join("2-0");
        std::fs::create_dir_all(dead.join(FILES)).unwrap();
        std::fs::write(dead.join(locked::LOCK), "").unwrap();
        tidy(parent.path());
        assert!(living.path().join(FILES).is_dir());
        assert!(!dead.exists());
    }
}
