//! Bytes of a log on their way to those who read it as it grows, before they are stored: binary
//! messages of the worker's WebSocket.
//!
//! ```text
//! fence (8)  offset (8)  length of the task's name (2)  the name  bytes
//! ```
//!
//! Numbers are little-endian; the job's own log has an empty name. They are sent best effort: a
//! worker sends few at once, each answered with [`crate::message::FromServer::Passed`], and
//! none at all where that takes long. What is stored is only what is appended
//! ([`crate::report`]).

use bytes::{Buf as _, Bytes};
use kiln_core::farm::Fence;

/// The most bytes of a log in one message.
pub const BYTES: usize = 16 << 10;
/// How many messages may be without an answer.
pub const WINDOW: usize = 4;

/// A task's name, in bytes.
const TASK: usize = 1024;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// The lease of the job whose log it is.
    pub fence: Fence,
    /// Where in the log the bytes will be.
    pub offset: u64,
    /// The task's name; empty for the job's own log.
    pub task: String,
    /// The bytes: 1 to [`BYTES`].
    pub bytes: Bytes,
}

impl Live {
    /// The message.
    #[must_use]
    pub fn message(&self) -> Bytes {
        let task = self.task.as_bytes();
        // A longer name than can be said makes a message that is refused.
        let length = u16::try_from(task.len()).unwrap_or(u16::MAX);
        let mut message = Vec::with_capacity(18 + task.len() + self.bytes.len());
        message.extend(self.fence.0.to_le_bytes());
        message.extend(self.offset.to_le_bytes());
        message.extend(length.to_le_bytes());
        message.extend(task);
        message.extend(&self.bytes);
        message.into()
    }
}

/// Reads a message.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn read(mut message: Bytes) -> Result<Live, &'static str> {
    const BROKEN: &str = "a message of live bytes breaks off";
    let fence = Fence(message.try_get_i64_le().map_err(|_| BROKEN)?);
    let offset = message.try_get_u64_le().map_err(|_| BROKEN)?;
    let length = usize::from(message.try_get_u16_le().map_err(|_| BROKEN)?);
    if length > message.len() {
        return Err(BROKEN);
    }
    let task = message.split_to(length);
    let task = str::from_utf8(&task).map_err(|_| "a task's name is text")?;
    if length > TASK {
        return Err("a task's name is too long");
    }
    if !(1..=BYTES).contains(&message.len()) {
        return Err("live bytes are 1 to 16384 bytes");
    }
    if offset.checked_add(message.len() as u64).is_none() {
        return Err("no log is so long");
    }
    Ok(Live {
        fence,
        offset,
        task: task.to_owned(),
        bytes: message,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_sent_is_read(
            fence: i64, offset in 0..u64::MAX / 2, task in "[a-z]{0,9}",
            bytes in prop::collection::vec(any::<u8>(), 1..BYTES),
        ) {
            let live = Live { fence: Fence(fence), offset, task, bytes: bytes.into() };
            prop_assert_eq!(read(live.message()), Ok(live));
        }

        #[test]
        fn garbage_is_refused_or_possible(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(live) = read(bytes.into()) {
                prop_assert!(!live.bytes.is_empty() && live.bytes.len() <= BYTES);
            }
        }
    }
}
