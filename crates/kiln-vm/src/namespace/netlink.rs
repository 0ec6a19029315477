//! Brings the loopback interface of a fresh network namespace up: one
//! `RTM_NEWLINK` message of rtnetlink(7).

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const IFF_UP: u32 = 1;
/// The loopback interface is the first one of every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// struct nlmsghdr and struct ifinfomsg, both of 16 bytes.
const MESSAGE_LEN: u32 = 32;

pub(super) fn bring_loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // NETLINK_ROUTE is protocol 0,
    )?;
    let mut message = Vec::with_capacity(MESSAGE_LEN as usize);
    message.extend(MESSAGE_LEN.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend([0; 8]); // sequence, port
    message.extend([0; 4]); // family, padding, device type
    message.extend(LOOPBACK_INDEX.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes()); // the mask of flags to change
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut reply = [0; 256];
    let (length, _) = rustix::net::recv(&socket, &mut reply, RecvFlags::empty())?;
    match reply.get(..length) {
        Some(reply) => acknowledged(reply),
        None => Err(io::Error::other("netlink: reply too long")),
    }
}

/// The kernel answers with `NLMSG_ERROR` and a negative errno, 0 for success.
fn acknowledged(reply: &[u8]) -> io::Result<()> {
    let kind = reply.get(4..6).and_then(|bytes| bytes.try_into().ok());
    let error = reply.get(16..20).and_then(|bytes| bytes.try_into().ok());
    match (kind.map(u16::from_ne_bytes), error.map(i32::from_ne_bytes)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(-error)),
        _ => Err(io::Error::other("netlink: reply makes no sense")),
    }
}
