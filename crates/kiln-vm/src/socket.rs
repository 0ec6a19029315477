//! Unix sockets that only this user may use, at paths of any length.

use std::{
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};

/// Listens; only this user may connect.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = with_short_path(path, UnixListener::bind)?;
    let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, owner_only)?;
    Ok(listener)
}

/// Connects to such a socket.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = with_short_path(path, std::os::unix::net::UnixStream::connect)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// A Unix socket's path has 107 bytes at most; a run's directory may be longer.
fn with_short_path<T>(path: &Path, open: impl Fn(PathBuf) -> io::Result<T>) -> io::Result<T> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    open(PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name))
}
