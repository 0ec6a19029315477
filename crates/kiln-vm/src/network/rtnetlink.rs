//! Reads the kernel's tables by rtnetlink(7): a dump is a request and a
//! sequence of messages, each with attributes.
//!
//! What the kernel writes below /proc/net has the main table only; policy
//! routing and VRFs have others.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// All routes, of all tables.
pub(super) const GET_ROUTE: u16 = 26;
/// All addresses of interfaces.
pub(super) const GET_ADDRESS: u16 = 22;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
/// The tables changed meanwhile.
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// struct nlmsghdr: length, type, flags, sequence, port.
const HEADER: usize = 16;
/// struct rtmsg is the longest of the families' headers.
const FAMILY_HEADER: usize = 12;
/// The kernel fills at most 32 KiB at a time.
const BUFFER: usize = 64 * 1024;
/// How often a table that changes meanwhile is read anew.
const ATTEMPTS: usize = 10;

/// The bodies of all IPv4 messages of this dump, without their headers.
///
/// # Errors
/// When the kernel refuses, or the tables never stand still.
pub(super) fn dump(what: u16) -> io::Result<Vec<Vec<u8>>> {
    for _ in 0..ATTEMPTS {
        if let Some(bodies) = attempt(what)? {
            return Ok(bodies);
        }
    }
    Err(io::Error::other("the kernel's routes change all the time"))
}

fn attempt(what: u16) -> io::Result<Option<Vec<Vec<u8>>>> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // NETLINK_ROUTE is protocol 0
    )?;
    let length = u32::try_from(HEADER + FAMILY_HEADER).unwrap_or_default();
    let mut request = Vec::with_capacity(HEADER + FAMILY_HEADER);
    request.extend(length.to_ne_bytes());
    request.extend(what.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    request.extend([0; 8]); // sequence, port
    let family = u8::try_from(AddressFamily::INET.as_raw()).unwrap_or_default();
    request.push(family);
    request.extend([0; FAMILY_HEADER - 1]);
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut bodies = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let (length, _) = rustix::net::recv(&socket, &mut *buffer, RecvFlags::empty())?;
        let received = buffer.get(..length).ok_or_else(nonsense)?;
        match messages(received, &mut bodies)? {
            Progress::More => {}
            Progress::Changed => return Ok(None),
            Progress::Done => return Ok(Some(bodies)),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    More,
    Changed,
    Done,
}

/// Takes the messages of one packet apart.
fn messages(packet: &[u8], bodies: &mut Vec<Vec<u8>>) -> io::Result<Progress> {
    let mut rest = packet;
    while !rest.is_empty() {
        let length = u32_at(rest, 0).ok_or_else(nonsense)? as usize;
        let (kind, flags) = (u16_at(rest, 4), u16_at(rest, 6));
        let (Some(kind), Some(flags)) = (kind, flags) else {
            return Err(nonsense());
        };
        let body = rest.get(HEADER..length).ok_or_else(nonsense)?;
        if flags & NLM_F_DUMP_INTR != 0 {
            return Ok(Progress::Changed);
        }
        match kind {
            NLMSG_DONE => return Ok(Progress::Done),
            NLMSG_ERROR => {
                let error = u32_at(body, 0).ok_or_else(nonsense)?.cast_signed();
                return Err(io::Error::from_raw_os_error(error.wrapping_neg()));
            }
            _ => bodies.push(body.to_vec()),
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    Ok(Progress::More)
}

/// The attributes after a header of `skip` bytes: their types and values.
pub(super) fn attributes(body: &[u8], skip: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(aligned(skip)..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(u16_at(rest, 0)?), u16_at(rest, 2)?);
        let value = rest.get(4..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        // The two highest bits are flags.
        Some((kind & 0x3fff, value))
    })
}

/// The next hops of a route that has several; each is struct rtnexthop and
/// attributes.
pub(super) fn hops(multipath: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = multipath;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let hop = rest.get(..length).filter(|hop| hop.len() >= HOP)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some(hop)
    })
}

/// The length of struct rtnexthop.
pub(super) const HOP: usize = 8;

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn nonsense() -> io::Error {
    io::Error::other("the kernel's answer makes no sense")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_packet_is_taken_apart_to_its_end() {
        let mut packet = message(24, 2, &[1; 12]);
        packet.extend(message(24, 2, &[2; 16]));
        let mut bodies = Vec::new();
        assert_eq!(messages(&packet, &mut bodies).unwrap(), Progress::More);
        assert_eq!(bodies, [vec![1; 12], vec![2; 16]]);
        packet.extend(message(NLMSG_DONE, 2, &[0; 4]));
        assert_eq!(messages(&packet, &mut Vec::new()).unwrap(), Progress::Done);
    }

    #[test]
    fn a_table_that_changed_and_an_error_are_noticed() {
        let changed = message(24, NLM_F_DUMP_INTR, &[1; 12]);
        assert_eq!(
            messages(&changed, &mut Vec::new()).unwrap(),
            Progress::Changed
        );
        let refused = message(NLMSG_ERROR, 0, &(-1i32).to_ne_bytes());
        let error = messages(&refused, &mut Vec::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(1));
        assert!(messages(&[9, 0, 0, 0, 1], &mut Vec::new()).is_err());
    }

    #[test]
    fn this_kernel_answers() {
        // The loopback's network is there wherever tests run.
        assert!(!dump(GET_ADDRESS).unwrap().is_empty());
        assert!(!dump(GET_ROUTE).unwrap().is_empty());
    }
}
