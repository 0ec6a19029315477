//! The control socket's messages: one JSON object per packet, descriptors
//! beside it (`SCM_RIGHTS`).

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{io::Interest, net::UnixStream};

use super::rlimits::Rlimits;

/// The largest packet; QEMU's command line is the longest thing in one.
const MAX_PACKET: usize = 128 * 1024;
/// The most descriptors in one packet.
const MAX_FDS: usize = 8;

/// From kiln to the helper.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// The first one: make the place what it should be. nft's rules come as a
    /// descriptor, because a host may have thousands of addresses.
    Setup { rules: bool, files: Files },
    /// Start the process; its descriptors come with the packet.
    Spawn {
        argv: Vec<String>,
        env: Vec<(String, String)>,
        cwd: PathBuf,
        stdout: bool,
        stderr: bool,
        limits: Rlimits,
    },
    /// Connect and answer with the descriptor.
    Connect { address: SocketAddr },
    /// Listen and answer with the descriptor.
    Listen { address: SocketAddr },
}

/// What is to be seen of the host inside, besides its programs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// Read-only, at the same path.
    pub visible: Vec<PathBuf>,
    /// The one directory that may be written, at the same path.
    pub own: Option<PathBuf>,
    /// The text of `/etc/resolv.conf`.
    pub resolv_conf: Option<String>,
}

/// A request with a number.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Numbered<T> {
    /// Of the request that is answered, so that the answer to one that nobody
    /// waits for any more is not taken for another's.
    pub number: u64,
    pub message: T,
}

/// From the helper to kiln: one reply per request, and `Exited` at any time.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// To `Setup`.
    Ready { pid: u32 },
    /// To the others; a descriptor comes with it where one was asked for.
    Done,
    /// To any.
    Failed { message: String },
    /// The process ended.
    Exited { status: u8 },
}

/// Both ends of a control socket, close-on-exec; ours does not block.
pub(crate) fn socketpair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

pub(super) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_PACKET || fds.len() > MAX_FDS {
        return Err(io::Error::other("message to the namespace too large"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors in one message"));
    }
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(&bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// The next message, or `None` at the end of the socket.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let message = serde_json::from_slice(bytes.get(..received.bytes).unwrap_or_default())?;
    Ok(Some((message, fds)))
}

/// Our end, for waiting on it. tokio's stream only waits for readiness here,
/// which does not depend on the kind of socket.
pub(super) fn register(ours: OwnedFd) -> io::Result<UnixStream> {
    UnixStream::from_std(ours.into())
}

pub(super) async fn send_async<T: Serialize>(
    socket: &UnixStream,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    socket
        .async_io(Interest::WRITABLE, || send(socket.as_fd(), message, fds))
        .await
}

pub(super) async fn receive_async<T: DeserializeOwned>(
    socket: &UnixStream,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    socket
        .async_io(Interest::READABLE, || receive(socket.as_fd()))
        .await
}
