//! Processor, memory and disk space.

use std::path::{Path, PathBuf};

use kiln_vm::qemu::{self, MIN_DISK_SPACE};
use rustix::fs::Access;

use super::finding::Finding;

/// What a guest has when neither its image nor `--memory` says otherwise.
const USUAL_MEMORY_MIB: u64 = 4096;
/// With less than this a kernel hardly comes up beside QEMU itself.
const MIN_MEMORY_MIB: u64 = 384;
/// A build of some size, and the logs of the last runs.
const AMPLE_RUNS: u64 = 5 << 30;
/// An image, and its disk while it is made.
const AMPLE_IMAGES: u64 = 2 << 30;

/// Processor and memory.
pub fn look() -> Vec<Finding> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    vec![processor(std::env::consts::ARCH, cores), memory(&meminfo)]
}

fn processor(arch: &str, cores: usize) -> Finding {
    let plural = if cores == 1 { "" } else { "s" };
    let what = format!("processor: {arch}, {cores} core{plural}");
    if qemu::binary(arch).is_some() {
        Finding::ok(what)
    } else {
        Finding::warning(
            format!("{what}; kiln knows no QEMU for it"),
            "images whose `functions` sets `qemu` work",
        )
    }
}

fn memory(meminfo: &str) -> Finding {
    let mib = |key: &str| {
        let row = meminfo.lines().find_map(|row| row.strip_prefix(key))?;
        let kib: u64 = row
            .trim_start_matches(':')
            .trim()
            .strip_suffix(" kB")?
            .parse()
            .ok()?;
        Some(kib / 1024)
    };
    let (Some(total), Some(available)) = (mib("MemTotal"), mib("MemAvailable")) else {
        return Finding::warning("memory: /proc/meminfo does not tell", "");
    };
    let what = format!("memory: {available} of {total} MiB are available");
    match available {
        0..MIN_MEMORY_MIB => {
            Finding::broken(what, "end what uses it; a guest does not start in that")
        }
        MIN_MEMORY_MIB..USUAL_MEMORY_MIB => Finding::warning(
            format!("{what}; a guest may take {USUAL_MEMORY_MIB}"),
            format!("give guests less: `kiln run --memory {}M`", available / 2),
        ),
        _ => Finding::ok(what),
    }
}

/// Where runs and images are.
pub fn disks(runs: &Path, images: &Path) -> Vec<Finding> {
    vec![
        runs_space(runs, measure(runs)),
        images_space(images, measure(images)),
    ]
}

/// What is known of the place where a directory is, or will be made.
#[derive(Debug, Clone)]
struct Space {
    /// The directory, or the nearest above it that exists.
    existing: PathBuf,
    /// Bytes that we may take.
    free: u64,
    /// Whether we may write there.
    writable: bool,
}

fn measure(dir: &Path) -> Option<Space> {
    let existing = dir.ancestors().find(|dir| dir.is_dir())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(Space {
        existing: existing.to_owned(),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        writable: rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
    })
}

fn runs_space(dir: &Path, space: Option<Space>) -> Finding {
    let Some(space) = space else {
        return Finding::broken(
            format!("disk, runs: {} can't be looked at", dir.display()),
            ELSEWHERE,
        );
    };
    if !space.writable {
        return Finding::broken(
            format!(
                "disk, runs: {} can't be written in",
                space.existing.display()
            ),
            ELSEWHERE,
        );
    }
    let what = format!(
        "disk, runs: {} free in {}",
        people_size(space.free),
        dir.display()
    );
    match space.free {
        0..MIN_DISK_SPACE => Finding::broken(
            format!(
                "{what}; a guest needs {} at the least",
                people_size(MIN_DISK_SPACE)
            ),
            "make room, or set XDG_STATE_HOME to a place with more",
        ),
        MIN_DISK_SPACE..AMPLE_RUNS => Finding::warning(
            format!("{what}; a larger build may fill that"),
            "make room, or set XDG_STATE_HOME to a place with more",
        ),
        _ => Finding::ok(what),
    }
}

const ELSEWHERE: &str = "make that directory yours, or set XDG_STATE_HOME to one that is";

fn images_space(dir: &Path, space: Option<Space>) -> Finding {
    let Some(space) = space else {
        return Finding::broken(
            format!("disk, images: {} can't be looked at", dir.display()),
            "name another directory with --images",
        );
    };
    let what = format!(
        "disk, images: {} free in {}",
        people_size(space.free),
        dir.display()
    );
    if !space.writable {
        return Finding::ok(format!(
            "{what}; it is not yours, so others build images there"
        ));
    }
    if space.free < AMPLE_IMAGES {
        return Finding::warning(
            format!("{what}; too little to build an image"),
            "make room, or set KILN_IMAGES to a place with more",
        );
    }
    Finding::ok(what)
}

fn people_size(bytes: u64) -> String {
    if bytes < 10 << 30 {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{} GiB", bytes >> 30)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meminfo(available_mib: u64) -> String {
        format!(
            "MemTotal:       16384000 kB\nMemFree: 1 kB\nMemAvailable:   {} kB\n",
            available_mib * 1024
        )
    }

    fn space(free: u64, writable: bool) -> Option<Space> {
        Some(Space {
            existing: "/home/u".into(),
            free,
            writable,
        })
    }

    #[test]
    fn an_unknown_processor_is_no_failure() {
        assert_eq!(
            processor("x86_64", 2).to_string(),
            "OK  processor: x86_64, 2 cores"
        );
        assert!(
            processor("vax", 1)
                .to_string()
                .starts_with("--  processor: vax, 1 core; ")
        );
    }

    #[test]
    fn little_memory_is_a_hint_and_none_a_failure() {
        assert_eq!(
            memory(&meminfo(9000)).to_string(),
            "OK  memory: 9000 of 16000 MiB are available"
        );
        assert!(
            memory(&meminfo(1000))
                .to_string()
                .ends_with("`kiln run --memory 500M`")
        );
        assert!(memory(&meminfo(100)).is_broken());
        assert!(!memory("").is_broken());
    }

    #[test]
    fn a_guests_disk_needs_room_in_a_place_that_is_ours() {
        let dir = Path::new("/home/u/.local/state/kiln/runs");
        assert!(
            runs_space(dir, space(20 << 30, true))
                .to_string()
                .starts_with("OK  disk, runs: 20 GiB free")
        );
        assert!(
            runs_space(dir, space(1 << 30, true))
                .to_string()
                .starts_with("--")
        );
        assert!(runs_space(dir, space(1 << 20, true)).is_broken());
        assert!(runs_space(dir, space(20 << 30, false)).is_broken());
        assert!(runs_space(dir, None).is_broken());
    }

    #[test]
    fn a_system_directory_of_images_need_not_be_ours() {
        let dir = Path::new("/var/lib/kiln/images");
        assert!(
            images_space(dir, space(1, false))
                .to_string()
                .starts_with("OK")
        );
        assert!(
            images_space(dir, space(1, true))
                .to_string()
                .starts_with("--")
        );
    }
}
