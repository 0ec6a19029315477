//! How much of the host one guest's QEMU may take. The reasons and what was
//! measured: docs/decisions, limits.

use std::path::Path;

use super::command::Ram;
use crate::{cgroup, machine::GuestSpec, namespace::Rlimits};

/// What QEMU takes besides the guest's memory: itself, its threads' stacks, the
/// uplink, and the host's cache of what the guest reads and writes.
const OVERHEAD: u64 = 512 << 20;
/// An emulated guest's translated code: QEMU's buffer for it.
const CODE: u64 = 1 << 30;
/// Stacks of the threads that do QEMU's I/O: 64 of 8 MiB.
const STACKS: u64 = 512 << 20;
/// QEMU's threads besides its processors', the helper and the uplink.
const THREADS: u32 = 128;
/// Each connection of the guest is one.
const DESCRIPTORS: u64 = 4096;
/// What qcow2 notes of what is where: less than a byte in 4096, and tables.
const TABLES: u64 = 2 << 20;

/// Of QEMU, its helper and its uplink.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub process: Rlimits,
    pub together: cgroup::Limits,
}

impl Limits {
    /// For a guest with this memory, in MiB, and a disk of `size` bytes.
    pub fn new(spec: &GuestSpec, memory_mib: u32, ram: Option<Ram>, size: u64, kvm: bool) -> Self {
        let memory = u64::from(memory_mib) << 20;
        // What is first written where a template's memory has a hole, the kernel
        // fills there too before it copies it.
        let below = if ram == Some(Ram::Private) { memory } else { 0 };
        let code = if kvm { 0 } else { CODE };
        let file_size = disk_file(spec.disk_mib, size);
        // A file there is memory, and can't leave it.
        let files = if in_memory(&spec.dir) { file_size } else { 0 };
        let threads = spec.cpus + THREADS;
        Self {
            process: Rlimits {
                file_size,
                data: memory + code + STACKS + OVERHEAD,
                descriptors: DESCRIPTORS,
                processes: threads.into(),
            },
            together: cgroup::Limits {
                memory: memory + below + code + OVERHEAD + files,
                processes: threads,
                // One for what QEMU does beside them.
                processors: spec.cpus + 1,
            },
        }
    }
}

/// The largest file of the guest's own layer, in bytes, when the guest may
/// write `mib` of a disk of `size` bytes.
fn disk_file(mib: Option<u32>, size: u64) -> u64 {
    let data = mib.map_or(size, |mib| size.min(u64::from(mib) << 20));
    data + data / 4096 + TABLES
}

fn in_memory(dir: &Path) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    rustix::fs::statfs(dir).is_ok_and(|stat| {
        let kind = u64::try_from(stat.f_type).unwrap_or_default();
        kind == TMPFS || kind == RAMFS
    })
}

/// For the kernel that is booted to try KVM: 512 MiB, and no disk.
pub(super) const PROBE: Rlimits = Rlimits {
    file_size: TABLES,
    data: 2 << 30,
    descriptors: DESCRIPTORS,
    processes: THREADS as u64,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_may_hold_what_was_asked_for_and_never_more_than_its_size() {
        let gib = 1 << 30;
        assert_eq!(disk_file(Some(1024), 8 * gib), disk_file(None, gib));
        assert_eq!(disk_file(Some(9000), 8 * gib), disk_file(None, 8 * gib));
        // The tables of 64 KiB clusters: 8 bytes and 2 bytes for each.
        let tables = disk_file(None, 8 * gib) - 8 * gib;
        assert!(tables > 8 * gib / 65536 * 10 + (1 << 20));
    }
}
