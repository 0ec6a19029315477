//! What is said on the bus, and its bytes.
//!
//! A message is a version, a seal, the member that says it, and hints:
//!
//! ```text
//! 1  seal (16 bytes)  member (8 bytes)  { kind (1 byte)  length (2 bytes)  that many bytes } *
//! ```
//!
//! The seal is HMAC-SHA256 of all behind it, cut, with a key that the farm's servers alone
//! know: what a stranger writes into the bus is no message. Numbers are little-endian. A message of another version is ignored, and so is a hint of a
//! kind that is not known: servers of several versions share a bus while they are upgraded.

use std::fmt;

use bytes::Bytes;
use kiln_core::farm::{JobId, LogName, SessionId};

use crate::seal;

/// The most bytes of a log that one hint holds.
pub const LIVE_BYTES: usize = 16 << 10;
/// The longest message that is made, or looked at.
pub(crate) const MAX_MESSAGE: usize = 64 << 10;
/// A task's name, in bytes.
const TASK: usize = 1024;

const VERSION: u8 = 1;
/// Version, seal and member.
const HEAD: usize = 1 + seal::LENGTH + size_of::<Member>();
/// A hint's kind and length.
const HINT: usize = 3;

const JOB: u8 = 1;
const SESSION: u8 = 2;
const GROWN: u8 = 3;
const LIVE: u8 = 4;
const GREETED: u8 = 5;
const WANTED: u8 = 6;

/// What the farm's servers know and nobody else.
#[derive(Clone)]
pub struct Key(pub [u8; 32]);

/// It is secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Who says something: a random number, so that nobody hears itself.
pub type Member = [u8; 8];

/// "Look again at X".
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Hint {
    /// A job has changed, or one of its tasks.
    Job(JobId),
    /// A session was given leases, or lost some.
    Session(SessionId),
    /// A session has said hello: sockets of it that were there before are not its own.
    Greeted(SessionId),
    /// A log has grown: more of it is stored.
    Grown(LogName),
    /// Somebody reads this log as it grows, and wants bytes that are not stored yet.
    Wanted(LogName),
    /// Bytes of a log that are not stored yet, at most [`LIVE_BYTES`].
    Live {
        /// The log.
        log: LogName,
        /// Where in it they will be.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
}

/// Why a message says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It was not said by a server of this farm.
    #[error("a message that no server of this farm has sealed")]
    Seal,
    /// Its version is another, or it has none.
    #[error("a message of another version")]
    Version,
    /// It is longer than messages are.
    #[error("a message that is too long")]
    Long,
    /// It breaks off.
    #[error("a message that breaks off")]
    Broken,
}

/// Who says that it says this message: nobody can know before its seal is looked at.
pub(crate) fn speaker(message: &[u8]) -> Option<Member> {
    let member = message.get(1 + seal::LENGTH..HEAD)?;
    member.try_into().ok()
}

/// Makes messages of hints, each as long as may be. What does not fit into any is left out.
#[must_use]
pub fn encode(key: &Key, member: Member, hints: &[Hint]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let mut message = head(member);
    let mut body = Vec::new();
    for hint in hints {
        body.clear();
        let kind = write(hint, &mut body);
        let Ok(length) = u16::try_from(body.len()) else {
            continue;
        };
        if message.len() + HINT + body.len() > MAX_MESSAGE {
            messages.push(sealed(key, std::mem::replace(&mut message, head(member))));
        }
        message.push(kind);
        message.extend(length.to_le_bytes());
        message.extend(&body);
    }
    if message.len() > HEAD {
        messages.push(sealed(key, message));
    }
    messages
}

fn head(member: Member) -> Vec<u8> {
    let mut message = vec![VERSION];
    message.extend([0; seal::LENGTH]);
    message.extend(member);
    message
}

fn sealed(key: &Key, mut message: Vec<u8>) -> Vec<u8> {
    let (_, rest) = message.split_at_mut(1);
    let (place, said) = rest.split_at_mut(seal::LENGTH);
    place.copy_from_slice(&seal::of(key, said));
    message
}

fn write(hint: &Hint, body: &mut Vec<u8>) -> u8 {
    match hint {
        Hint::Job(job) => {
            body.extend(job.0.to_le_bytes());
            JOB
        }
        Hint::Session(session) => {
            body.extend(session.as_str().as_bytes());
            SESSION
        }
        Hint::Greeted(session) => {
            body.extend(session.as_str().as_bytes());
            GREETED
        }
        Hint::Grown(log) => {
            write_log(log, body);
            GROWN
        }
        Hint::Wanted(log) => {
            write_log(log, body);
            WANTED
        }
        Hint::Live { log, offset, bytes } => {
            write_log(log, body);
            body.extend(offset.to_le_bytes());
            body.extend(bytes);
            LIVE
        }
    }
}

fn write_log(log: &LogName, body: &mut Vec<u8>) {
    let task = log.task().as_bytes();
    body.extend(log.job().0.to_le_bytes());
    // A longer one than can be said makes a hint that is left out.
    body.extend(u16::try_from(task.len()).unwrap_or(u16::MAX).to_le_bytes());
    body.extend(task);
}

/// Reads a message: who says what. Hints that are not understood are left out.
///
/// # Errors
/// [`Unreadable`].
pub fn decode(key: &Key, message: &[u8]) -> Result<(Member, Vec<Hint>), Unreadable> {
    if message.len() > MAX_MESSAGE {
        return Err(Unreadable::Long);
    }
    let mut rest = Rest(message);
    if rest.array() != Some([VERSION]) {
        return Err(Unreadable::Version);
    }
    let sealed: [u8; seal::LENGTH] = rest.array().ok_or(Unreadable::Broken)?;
    if !seal::is(key, rest.0, sealed) {
        return Err(Unreadable::Seal);
    }
    let member = rest.array().ok_or(Unreadable::Broken)?;
    let mut hints = Vec::new();
    while !rest.0.is_empty() {
        let [kind] = rest.array().ok_or(Unreadable::Broken)?;
        let length = u16::from_le_bytes(rest.array().ok_or(Unreadable::Broken)?);
        let body = rest.take(length.into()).ok_or(Unreadable::Broken)?;
        hints.extend(read(kind, Rest(body)));
    }
    Ok((member, hints))
}

fn read(kind: u8, mut body: Rest<'_>) -> Option<Hint> {
    match kind {
        JOB => {
            let job = JobId(i32::from_le_bytes(body.array()?));
            body.0.is_empty().then_some(Hint::Job(job))
        }
        SESSION => read_session(&body).map(Hint::Session),
        GREETED => read_session(&body).map(Hint::Greeted),
        GROWN | WANTED => {
            let log = read_log(&mut body)?;
            let hint = if kind == GROWN {
                Hint::Grown(log)
            } else {
                Hint::Wanted(log)
            };
            body.0.is_empty().then_some(hint)
        }
        LIVE => {
            let log = read_log(&mut body)?;
            let offset = u64::from_le_bytes(body.array()?);
            let length = body.0.len();
            let good =
                (1..=LIVE_BYTES).contains(&length) && offset.checked_add(length as u64).is_some();
            let bytes = Bytes::copy_from_slice(body.0);
            good.then_some(Hint::Live { log, offset, bytes })
        }
        _ => None,
    }
}

fn read_session(body: &Rest<'_>) -> Option<SessionId> {
    let session = str::from_utf8(body.0).ok()?.to_owned();
    SessionId::try_from(session).ok()
}

fn read_log(body: &mut Rest<'_>) -> Option<LogName> {
    let job = JobId(i32::from_le_bytes(body.array()?));
    let length = u16::from_le_bytes(body.array()?);
    let task = body.take(length.into())?;
    (task.len() <= TASK).then_some(())?;
    Some(LogName::of(job, str::from_utf8(task).ok()?))
}

/// What was not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: Key = Key([7; 32]);

    fn log() -> impl Strategy<Value = LogName> {
        (any::<i32>(), "[a-z_]{0,40}").prop_map(|(job, task)| LogName::of(JobId(job), &task))
    }

    fn hint() -> impl Strategy<Value = Hint> {
        prop_oneof![
            any::<i32>().prop_map(|job| Hint::Job(JobId(job))),
            any::<[u8; 16]>().prop_map(|random| Hint::Session(SessionId::new(random))),
            any::<[u8; 16]>().prop_map(|random| Hint::Greeted(SessionId::new(random))),
            log().prop_map(Hint::Grown),
            log().prop_map(Hint::Wanted),
            (
                log(),
                0..u64::MAX / 2,
                prop::collection::vec(any::<u8>(), 1..2000)
            )
                .prop_map(|(log, offset, bytes)| Hint::Live {
                    log,
                    offset,
                    bytes: bytes.into()
                }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_said_is_understood(
            member: Member, hints in prop::collection::vec(hint(), 0..200)
        ) {
            let mut understood = Vec::new();
            for message in encode(&KEY, member, &hints) {
                prop_assert!(message.len() <= MAX_MESSAGE);
                let (from, hints) = decode(&KEY, &message).unwrap();
                prop_assert_eq!(from, member);
                understood.extend(hints);
            }
            prop_assert_eq!(understood, hints);
        }

        #[test]
        fn garbage_says_nothing_and_harms_nobody(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(&KEY, &bytes).is_err());
        }

        #[test]
        fn what_another_farm_says_or_somebody_changed_says_nothing(
            hints in prop::collection::vec(hint(), 1..5), at: prop::sample::Index, bit in 0..8
        ) {
            let mut message = encode(&KEY, [1; 8], &hints).remove(0);
            prop_assert_eq!(decode(&Key([8; 32]), &message), Err(Unreadable::Seal));
            let at = at.index(message.len());
            message[at] ^= 1_u8 << bit;
            prop_assert!(decode(&KEY, &message).is_err());
        }

        /// From a server that is broken, or newer.
        #[test]
        fn half_good_garbage_says_only_what_is_possible(
            bytes in prop::collection::vec(prop_oneof![0u8..7, any::<u8>()], 0..300)
        ) {
            let mut message = head([7; 8]);
            message.extend(bytes);
            if let Ok((_, hints)) = decode(&KEY, &sealed(&KEY, message)) {
                for hint in hints {
                    if let Hint::Live { offset, bytes, .. } = hint {
                        prop_assert!(!bytes.is_empty() && bytes.len() <= LIVE_BYTES);
                        prop_assert!(offset.checked_add(bytes.len() as u64).is_some());
                    }
                }
            }
        }
    }

    #[test]
    fn what_a_newer_server_says_is_left_out_and_the_rest_understood() {
        let mut message = head([1; 8]);
        message.extend([99, 3, 0, 1, 2, 3]);
        message.extend([JOB, 4, 0, 5, 0, 0, 0]);
        let mut message = sealed(&KEY, message);
        assert_eq!(
            decode(&KEY, &message),
            Ok(([1; 8], vec![Hint::Job(JobId(5))]))
        );
        message[0] = 2;
        assert_eq!(decode(&KEY, &message), Err(Unreadable::Version));
    }

    #[test]
    fn a_message_longer_than_any_is_not_looked_at() {
        let long = vec![VERSION; MAX_MESSAGE + 1];
        assert_eq!(decode(&KEY, &long), Err(Unreadable::Long));
    }
}
