//! Small disks of their own, which can be filled.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// A file system in memory below a directory.
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts one, where this process may, for whom the directory is.
    pub fn mount(path: &Path, mib: u32) -> Option<Self> {
        fs::create_dir_all(path).expect("a directory");
        let whose = fs::metadata(path).expect("a directory");
        let (user, group) = (whose.uid(), whose.gid());
        let options = format!("size={mib}m,mode=700,uid={user},gid={group}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(path)
            .status();
        let mounted = mounted.is_ok_and(|status| status.success());
        mounted.then(|| Self {
            path: path.to_owned(),
        })
    }

    /// The same, and what was in the directory is on it.
    pub fn under(path: &Path, mib: u32) -> Option<Self> {
        let before = path.with_extension("before");
        let copied = Command::new("cp").arg("-a").args([path, &before]).status();
        assert!(copied.is_ok_and(|status| status.success()), "a copy");
        let disk = Self::mount(path, mib);
        if disk.is_some() {
            let back = Command::new("cp")
                .arg("-a")
                .args([before.join("."), path.to_owned()])
                .status();
            assert!(back.is_ok_and(|status| status.success()), "a copy");
        }
        fs::remove_dir_all(before).expect("a directory");
        disk
    }

    /// Leaves no byte free.
    pub fn fill(&self) {
        let Ok(mut file) = File::create(self.path.join("filler")) else {
            return;
        };
        for size in [1 << 20, 4096, 1] {
            let bytes = vec![b'x'; size];
            while file.write_all(&bytes).is_ok() {}
        }
    }

    /// Takes that away.
    pub fn free(&self) {
        let _ = fs::remove_file(self.path.join("filler"));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
