//! How much of what comes in is in memory at once.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of all appends, or of all artifacts, that are on their way to where they are stored.
const ALL: usize = 64 << 20;
/// What is counted at once.
const UNIT: usize = 1 << 10;
/// How long somebody waits for room. Workers wait longer for an answer.
const WAIT: Duration = Duration::from_secs(10);

/// There is no room now: what comes in is stored more slowly than it comes. It may be sent
/// again.
#[derive(Debug, thiserror::Error)]
#[error("more comes in than can be stored now")]
pub struct Busy;

#[derive(Debug, Clone)]
pub(crate) struct Rooms(Arc<Semaphore>);

/// Room in memory, until it is dropped.
#[derive(Debug)]
pub struct Room {
    _permit: OwnedSemaphorePermit,
}

impl Default for Rooms {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ALL / UNIT)))
    }
}

impl Rooms {
    pub(crate) async fn take(&self, bytes: usize) -> Result<Room, Busy> {
        let units = u32::try_from(bytes.div_ceil(UNIT).min(ALL / UNIT)).unwrap_or(u32::MAX);
        let taken = Arc::clone(&self.0).acquire_many_owned(units);
        match tokio::time::timeout(WAIT, taken).await {
            Ok(Ok(permit)) => Ok(Room { _permit: permit }),
            // It is never closed.
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }
}

impl Room {
    /// Bytes that keep this room until the last of them is gone.
    #[must_use]
    pub fn with(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Filled { bytes, _room: self })
    }
}

struct Filled {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_is_given_back_with_the_last_of_the_bytes() {
        let rooms = Rooms::default();
        let all = rooms.take(usize::MAX).await.unwrap();
        let bytes = all.with(Bytes::from_static(b"hello"));
        let rest = bytes.slice(1..);
        drop(bytes);
        assert_eq!(rooms.0.available_permits(), 0);
        drop(rest);
        assert!(rooms.take(ALL).await.is_ok());
    }
}
