//! What one process inside may take, and what it starts: the kernel's resource
//! limits, which need no rights on any host.

use std::io;

use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};

/// The first kernel that counts a user's processes in each user namespace
/// apart. Before, those that the user has elsewhere would count too.
const COUNTS_APART: (u32, u32) = (5, 14);

/// Limits of the process inside. Nothing dumps core, uses POSIX message queues
/// or locks memory, besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimits {
    /// The largest file that it writes, in bytes. What is more is an error of
    /// writing (`EFBIG`), not the end of the process.
    pub file_size: u64,
    /// The private memory of each process, in bytes. Reservations and shared
    /// memory don't count.
    pub data: u64,
    /// The open descriptors of each process.
    pub descriptors: u64,
    /// The processes and threads in the place together. Only in namespaces, and
    /// not where kiln is root: the kernel lets root have any number.
    pub processes: u64,
}

impl Rlimits {
    /// In the kernel's words. `isolated`: whether in a user namespace of its own.
    pub(super) fn words(&self, isolated: bool) -> Vec<(Resource, u64)> {
        /// What io_uring asked for before it was counted otherwise.
        const LOCKED: u64 = 64 << 10;
        let mut words = vec![
            (Resource::Core, 0),
            (Resource::Msgqueue, 0),
            (Resource::Memlock, LOCKED),
            (Resource::Fsize, self.file_size),
            (Resource::Data, self.data),
            (Resource::Nofile, self.descriptors),
        ];
        if isolated && counts_apart() {
            words.push((Resource::Nproc, self.processes));
        }
        words
    }
}

/// Sets them for this process. Called between fork and exec: allocates nothing.
pub(super) fn apply(words: &[(Resource, u64)]) -> io::Result<()> {
    for &(resource, limit) in words {
        // Only root may raise what it was given.
        let limit = match rustix::process::getrlimit(resource).maximum {
            Some(most) => limit.min(most),
            None => limit,
        };
        let both = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        rustix::process::setrlimit(resource, both)?;
    }
    Ok(())
}

/// Lets a write beyond the largest file fail instead of ending the process.
/// Programs that are executed inherit it.
pub(super) fn survive_large_files() -> io::Result<()> {
    #[expect(unsafe_code, reason = "no safe form ignores a signal")]
    // SAFETY: no handler is set, so nothing runs in one.
    let before = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    if before == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn counts_apart() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    version(&release).is_some_and(|version| version >= COUNTS_APART)
}

/// `6.1.0-18-amd64` is 6.1.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|character: char| !character.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Rlimits = Rlimits {
        file_size: 1,
        data: 2,
        descriptors: 3,
        processes: 4,
    };

    #[test]
    fn without_namespaces_the_users_other_processes_would_count() {
        let limits = |isolated| LIMITS.words(isolated).into_iter().map(|(what, _)| what);
        assert!(!limits(false).any(|what| what == Resource::Nproc));
        assert_eq!(
            limits(true).any(|what| what == Resource::Nproc),
            counts_apart()
        );
    }

    #[test]
    fn kernels_are_told_by_their_first_two_numbers() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.14-rc1"), Some((5, 14)));
        assert_eq!(version("odd"), None);
    }
}
