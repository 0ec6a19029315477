//! The file system inside: an empty root with what a guest needs of the host,
//! read-only, and one directory of its own.
//!
//! Whatever runs inside may turn out to be hostile (a QEMU that its guest took
//! over, an image's `functions`). It finds programs and libraries, the files
//! that it was given, and nothing else of the host: no home, no `/etc`, no
//! sockets, no devices but the harmless ones, no `/proc` but its own
//! processes.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd, OwnedFd},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, StatVfsMountFlags},
    mount::{MountFlags, MountPropagationFlags, UnmountFlags},
};

use super::protocol::Files;

/// Programs and libraries, wherever a distribution has them.
const PROGRAMS: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/gnu/store",
];
/// What programs and libraries are found by.
const SETTINGS: &[&str] = &["/etc/alternatives", "/etc/ld.so.cache"];
/// Devices that anybody may have. `/dev/kvm` where there is one.
const DEVICES: &[&str] = &[
    "/dev/full",
    "/dev/kvm",
    "/dev/null",
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
];
/// One user and group, for programs that ask who they are.
const PASSWD: &str = "root:x:0:0:root:/tmp:/bin/sh\n";
const GROUP: &str = "root:x:0:\n";
/// For a script's plain `ssh … build@localhost`.
const HOSTS: &str = "127.0.0.1 localhost\n";
/// Where the new root is put together. Every system has it.
const STAGE: &str = "/tmp";

/// Moves into the new root.
pub(super) fn enter(files: &Files) -> io::Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    // Opened before anything is mounted over them.
    let host = PROGRAMS.iter().chain(SETTINGS).chain(DEVICES);
    let host = host.map(|path| (Path::new(*path), Links::Kept));
    let asked = files
        .visible
        .iter()
        .map(|path| (path.as_path(), Links::Followed));
    let sources = host
        .chain(asked)
        .filter_map(|(path, links)| Source::open(path, links).transpose());
    let sources: Vec<Source> = sources.collect::<io::Result<_>>()?;
    let own = match &files.own {
        Some(path) => Source::open(path, Links::Followed)?,
        None => None,
    };
    let tmpfs = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", STAGE, "tmpfs", tmpfs, c"mode=0755,size=16m")
        .map_err(|error| super::helper::context(STAGE, &error.into()))?;
    let root = Path::new(STAGE);
    furnish(root, files.resolv_conf.as_deref())?;
    for source in &sources {
        source.bind(root, MountFlags::RDONLY)?;
    }
    if let Some(own) = own {
        own.bind(root, MountFlags::empty())?;
    }
    rustix::process::chdir(root)?;
    // pivot_root(2): with both the same, the old root lies over the new one
    // and is taken off.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    seal()
}

/// Something of the host that is to be seen at the same path.
struct Source {
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    /// `/bin → usr/bin`
    Link(PathBuf),
    /// A directory, or a file.
    Mount { fd: OwnedFd, dir: bool },
}

/// What becomes of a link.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    /// It is a link inside too: `/bin → usr/bin`.
    Kept,
    /// What it leads to is seen in its place: where that is may not be seen.
    Followed,
}

impl Source {
    /// What is not there need not be seen.
    fn open(path: &Path, links: Links) -> io::Result<Option<Self>> {
        let meta = match links {
            Links::Kept => fs::symlink_metadata(path),
            Links::Followed => fs::metadata(path),
        };
        let meta = match meta {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(super::helper::context(&path.display().to_string(), &error)),
        };
        let kind = if meta.is_symlink() {
            Kind::Link(fs::read_link(path)?)
        } else {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let fd = rustix::fs::open(path, flags, Mode::empty())?;
            let dir = meta.is_dir();
            Kind::Mount { fd, dir }
        };
        let path = path.to_owned();
        Ok(Some(Self { path, kind }))
    }

    fn bind(&self, root: &Path, flags: MountFlags) -> io::Result<()> {
        let target = root.join(self.path.strip_prefix("/").unwrap_or(&self.path));
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        match &self.kind {
            // Two images may be links to one.
            Kind::Link(to) if fs::symlink_metadata(&target).is_err() => symlink(to, &target),
            Kind::Link(_) => Ok(()),
            Kind::Mount { fd, dir } => {
                if *dir {
                    fs::create_dir_all(&target)?;
                } else if !target.exists() {
                    File::create(&target)?;
                }
                let source = format!("/proc/self/fd/{}", fd.as_raw_fd());
                rustix::mount::mount_bind_recursive(source.as_str(), &target)?;
                restrict_all(&target, flags)
            }
        }
        .map_err(|error| super::helper::context(&self.path.display().to_string(), &error))
    }
}

/// Sets the flags of a mount and of what is mounted below it: a recursive
/// bind brings that along as it is on the host.
fn restrict_all(target: &Path, flags: MountFlags) -> io::Result<()> {
    restrict(target, flags)?;
    let table = fs::read("/proc/self/mountinfo")?;
    let rows = table.split(|&byte| byte == b'\n');
    for path in rows.filter_map(mount_point) {
        if path.starts_with(target) && path != target {
            restrict(&path, flags)?;
        }
    }
    Ok(())
}

/// The fifth word of a row of proc_pid_mountinfo(5); blanks, tabs, newlines and
/// backslashes in it are three octal digits.
fn mount_point(row: &[u8]) -> Option<PathBuf> {
    let word = row.split(|&byte| byte == b' ').nth(4)?;
    let mut path = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped.filter(|_| byte == b'\\') {
            Some(escaped) => {
                path.push(escaped);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                path.push(byte);
                rest = tail;
            }
        }
    }
    Some(PathBuf::from(
        <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(path),
    ))
}

/// Sets the mount's flags. Those that it has from the host can't be taken off
/// by a user namespace and have to be named again.
fn restrict(target: &Path, flags: MountFlags) -> io::Result<()> {
    let had = rustix::fs::statvfs(target)?.f_flag;
    let mut flags = flags | MountFlags::BIND | MountFlags::NOSUID;
    for (had_flag, flag) in [
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
    ] {
        if had.contains(had_flag) {
            flags |= flag;
        }
    }
    Ok(rustix::mount::mount_remount(target, flags, "")?)
}

/// What a system has besides.
fn furnish(root: &Path, resolv_conf: Option<&str>) -> io::Result<()> {
    for dir in ["etc", "proc", "tmp", "dev"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::write(root.join("etc/passwd"), PASSWD)?;
    fs::write(root.join("etc/group"), GROUP)?;
    fs::write(root.join("etc/hosts"), HOSTS)?;
    if let Some(text) = resolv_conf {
        fs::write(root.join("etc/resolv.conf"), text)?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_proc(&root.join("proc"), flags)
        .map_err(|error| super::helper::context("mount /proc", &error))?;
    let tmp = flags - MountFlags::NOEXEC;
    rustix::mount::mount(
        "tmpfs",
        root.join("tmp"),
        "tmpfs",
        tmp,
        c"mode=1777,size=64m",
    )?;
    Ok(())
}

/// Only processes: what else is in there are the kernel's own settings, which
/// a namespace of the host's root could write. A kernel before 5.8 can't leave
/// them out; there they can't be written.
fn mount_proc(target: &Path, flags: MountFlags) -> io::Result<()> {
    match rustix::mount::mount("proc", target, "proc", flags, c"subset=pid") {
        Err(rustix::io::Errno::INVAL) => {}
        mounted => return Ok(mounted?),
    }
    rustix::mount::mount("proc", target, "proc", flags, None)?;
    for name in ["bus", "fs", "irq", "sys", "sysrq-trigger"] {
        let path = target.join(name);
        if path.exists() {
            rustix::mount::mount_bind_recursive(&path, &path)?;
            restrict_all(&path, flags | MountFlags::RDONLY)?;
        }
    }
    Ok(())
}

/// Nothing is added to the root any more.
fn seal() -> io::Result<()> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    Ok(rustix::mount::mount_remount(
        "/",
        flags | MountFlags::BIND,
        "",
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_they_are_written() {
        let row = b"36 35 98:0 /mnt1 /mnt/a\\040b\\134c rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(row), Some(PathBuf::from("/mnt/a b\\c")));
        assert_eq!(mount_point(b""), None);
    }
}
