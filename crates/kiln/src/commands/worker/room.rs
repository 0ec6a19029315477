//! How many more guests memory and disk allow.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kiln_worker::farm::Room;

/// What is left to everything else on this host, in bytes.
const MEMORY_RESERVE: u64 = 256 << 20;
/// Likewise: logs that wait to be sent, artifacts on their way.
const DISK_RESERVE: u64 = 1 << 30;

/// What is free here, in bytes, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Free {
    /// Memory that the kernel can give, and that the cgroups that we are in allow.
    pub memory: Option<u64>,
    /// Where jobs' files are.
    pub disk: Option<u64>,
}

/// Looks at this host.
pub fn look(data: &Path) -> Free {
    let meminfo = fs::read_to_string("/proc/meminfo").ok();
    let host = meminfo.as_deref().and_then(available);
    let own = fs::read_to_string("/proc/self/cgroup").ok();
    let cgroup = own.and_then(|own| in_cgroups(Path::new("/sys/fs/cgroup"), &own));
    let existing = data.ancestors().find(|path| path.exists());
    let stat = existing.and_then(|path| rustix::fs::statvfs(path).ok());
    Free {
        memory: [host, cgroup].into_iter().flatten().min(),
        disk: stat.map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize)),
    }
}

impl Free {
    /// How many more guests of this size there is room for, beside those that come.
    pub fn room(&self, memory: u64, disk: u64, coming: u32) -> Room {
        let guests = |free: Option<u64>, reserve: u64, each: u64| {
            let guests = free.map_or(u64::MAX, |free| free.saturating_sub(reserve) / each.max(1));
            u32::try_from(guests).unwrap_or(u32::MAX)
        };
        let by_memory = guests(self.memory, MEMORY_RESERVE, memory);
        let by_disk = guests(self.disk, DISK_RESERVE, disk);
        let short_of = if by_memory <= by_disk {
            "memory"
        } else {
            "disk space"
        };
        Room {
            more: by_memory.min(by_disk).saturating_sub(coming),
            short_of: Some(short_of.to_owned()),
        }
    }
}

fn available(meminfo: &str) -> Option<u64> {
    let row = meminfo
        .lines()
        .find_map(|row| row.strip_prefix("MemAvailable:"))?;
    let kib: u64 = row.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// The least that is left in any of the cgroups (version 2) that we are in.
fn in_cgroups(root: &Path, own: &str) -> Option<u64> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let dir: PathBuf = root.join(path.trim_start_matches('/'));
    let above = dir.ancestors().take_while(|dir| dir.starts_with(root));
    above.filter_map(left).min()
}

fn left(dir: &Path) -> Option<u64> {
    let number = |name: &str| -> Option<u64> {
        fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok()
    };
    // `max` is no number: no limit.
    let limit = number("memory.max")?;
    let used = number("memory.current")?;
    let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let cache = stat
        .lines()
        .find_map(|row| row.strip_prefix("inactive_file ")?.parse::<u64>().ok());
    // What the kernel would give back first counts as free.
    Some(limit.saturating_sub(used.saturating_sub(cache.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn what_there_is_least_of_says_how_many() {
        let free = Free {
            memory: Some(9 * GIB),
            disk: Some(4 * GIB),
        };
        assert_eq!(
            free.room(2 * GIB, GIB, 0),
            Room {
                more: 3,
                short_of: Some("disk space".into())
            }
        );
        assert_eq!(free.room(4 * GIB, GIB, 1).more, 1);
        assert_eq!(
            free.room(4 * GIB, GIB, 1).short_of.as_deref(),
            Some("memory")
        );
        assert_eq!(free.room(64 * GIB, GIB, 0).more, 0);
        assert_eq!(Free::default().room(GIB, GIB, 0).more, u32::MAX);
    }

    #[test]
    fn the_tightest_cgroup_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("a/memory.max", "1000\n");
        write("a/memory.current", "900\n");
        write("a/memory.stat", "anon 1\ninactive_file 300\n");
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "5\n");
        assert_eq!(in_cgroups(root.path(), "0::/a/b\n"), Some(400));
        assert_eq!(in_cgroups(root.path(), "0::/c\n"), None);
        assert_eq!(in_cgroups(root.path(), "4:memory:/x\n"), None);
    }

    #[test]
    fn the_kernels_own_estimate_is_read() {
        assert_eq!(
            available("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(available("MemTotal: 9 kB\n"), None);
    }
}
