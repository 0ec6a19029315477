//! What a job has said and the server has not stored yet: events and logs in
//! one order, in a file.
//!
//! A guest's output waits for room, so the guest is not read while there is
//! none. What kiln itself says has a reserve, for a job must be able to end.

use std::{
    fs::File,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use kiln_core::farm::limits;
use tokio::sync::Notify;

use super::ring::Ring;
use crate::{LogId, ReportError};

/// What only kiln's own words may fill, in bytes.
const RESERVE: u64 = 1 << 20;
/// The most that one record of a log holds, so that it always fits.
const PIECE: usize = 256 << 10;
/// A record's head: which log, how many bytes.
const HEAD: usize = 8;
/// In place of a log's number: an event.
const EVENT: u32 = u32::MAX;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    Guest,
    Kiln,
}

/// What comes first.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// Bytes of a log, as many as one append takes.
    Log(LogId, Bytes),
    /// An event's JSON.
    Event(Bytes),
}

/// A spool. One writes, one reads.
pub(super) struct Spool {
    inner: Mutex<Inner>,
    grown: Notify,
    shrunk: Notify,
}

struct Inner {
    ring: Ring,
    logs: Vec<LogId>,
    /// How many bytes the item takes that was given last.
    front: u64,
    /// How far was looked beyond it.
    beyond: u64,
    /// The number of the log that it is of.
    log: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing more is written.
    Closed,
    /// Nothing more is read.
    Broken,
}

impl Spool {
    /// In this file, with room for this many bytes of output.
    pub fn new(file: File, capacity: u64) -> io::Result<Self> {
        Ok(Self {
            inner: Mutex::new(Inner {
                ring: Ring::new(file, capacity + RESERVE)?,
                logs: Vec::new(),
                front: 0,
                beyond: 0,
                log: EVENT,
                state: State::Open,
            }),
            grown: Notify::new(),
            shrunk: Notify::new(),
        })
    }

    /// Adds to a log; waits for room.
    ///
    /// # Errors
    /// [`ReportError::Refused`] when nobody reads any more.
    pub async fn append(&self, log: &LogId, bytes: &[u8], voice: Voice) -> Result<(), ReportError> {
        for piece in bytes.chunks(PIECE) {
            let number = self.lock().number(log);
            self.push(number, piece, voice).await?;
        }
        Ok(())
    }

    /// Adds an event.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub async fn event(&self, json: &[u8]) -> Result<(), ReportError> {
        self.push(EVENT, json, Voice::Kiln).await
    }

    async fn push(&self, number: u32, bytes: &[u8], voice: Voice) -> Result<(), ReportError> {
        while !self.lock().push(number, bytes, voice)? {
            self.shrunk.notified().await;
        }
        self.grown.notify_one();
        Ok(())
    }

    /// Waits for what comes first; nothing when all is read and no more comes.
    ///
    /// # Errors
    /// The file's.
    pub async fn front(&self) -> io::Result<Option<Item>> {
        loop {
            {
                let mut inner = self.lock();
                if inner.ring.len() > 0 {
                    return inner.take_front().map(Some);
                }
                if inner.state != State::Open {
                    return Ok(None);
                }
            }
            self.grown.notified().await;
        }
    }

    /// Waits for more of the log that was given last, and adds it. False when there will be
    /// no more for the same append: it is full, something else comes first, or nothing more
    /// is written.
    ///
    /// # Errors
    /// The file's.
    pub async fn more(&self, text: &mut Vec<u8>) -> io::Result<bool> {
        self.add(text, |inner| &mut inner.front).await
    }

    /// Waits for what comes behind what was given last, of the same log, and adds that: a look
    /// ahead, which takes nothing away. False as [`Self::more`].
    ///
    /// # Errors
    /// The file's.
    pub async fn beyond(&self, text: &mut Vec<u8>) -> io::Result<bool> {
        self.add(text, |inner| &mut inner.beyond).await
    }

    /// Waits until there is more from that place on, adds it, and moves the place.
    async fn add(
        &self,
        text: &mut Vec<u8>,
        place: impl Fn(&mut Inner) -> &mut u64,
    ) -> io::Result<bool> {
        loop {
            {
                let mut inner = self.lock();
                let from = *place(&mut inner);
                if from < inner.ring.len() {
                    let (to, more) = inner.read_on(from, text)?;
                    *place(&mut inner) = to;
                    inner.beyond = inner.beyond.max(to);
                    return Ok(more);
                }
                if inner.state != State::Open {
                    return Ok(false);
                }
            }
            self.grown.notified().await;
        }
    }

    /// Whether something comes behind the item that was given last.
    pub fn has_more(&self) -> bool {
        let inner = self.lock();
        inner.ring.len() > inner.front
    }

    /// The item that was given last is stored.
    pub fn pop(&self) {
        let mut inner = self.lock();
        let front = std::mem::take(&mut inner.front);
        inner.ring.pop(front);
        drop(inner);
        self.shrunk.notify_one();
    }

    /// Nothing more is written.
    pub fn close(&self) {
        self.end(State::Closed);
    }

    /// Nothing more is read: whoever writes is told so.
    pub fn break_off(&self) {
        self.end(State::Broken);
    }

    fn end(&self, state: State) {
        let mut inner = self.lock();
        if inner.state != State::Broken {
            inner.state = state;
        }
        drop(inner);
        self.grown.notify_one();
        self.shrunk.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A log's number in the records.
    fn number(&mut self, log: &LogId) -> u32 {
        let known = self.logs.iter().position(|known| known == log);
        let index = known.unwrap_or_else(|| {
            self.logs.push(log.clone());
            self.logs.len() - 1
        });
        u32::try_from(index).unwrap_or(EVENT)
    }

    /// Whether there was room.
    fn push(&mut self, number: u32, bytes: &[u8], voice: Voice) -> Result<bool, ReportError> {
        if self.state == State::Broken {
            return Err(ReportError::Refused);
        }
        let needed = (HEAD + bytes.len()) as u64;
        let reserve = if voice == Voice::Guest { RESERVE } else { 0 };
        if needed + reserve > self.ring.free() {
            return Ok(false);
        }
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&number.to_le_bytes());
        head[4..].copy_from_slice(&length.to_le_bytes());
        self.ring.push(&[&head, bytes])?;
        Ok(true)
    }

    fn take_front(&mut self) -> io::Result<Item> {
        let (number, length) = self.head(0)?;
        if number == EVENT {
            let mut json = Vec::new();
            self.read(HEAD as u64, length, &mut json)?;
            self.front = HEAD as u64 + length;
            return Ok(Item::Event(json.into()));
        }
        let log = usize::try_from(number)
            .ok()
            .and_then(|index| self.logs.get(index));
        let log = log.ok_or(io::ErrorKind::InvalidData)?.clone();
        // As much as there is, and no more than an append takes: it never grows.
        let most = self.ring.len().min(limits::APPEND as u64);
        let mut text = Vec::with_capacity(usize::try_from(most).unwrap_or_default());
        self.log = number;
        (self.front, _) = self.read_on(0, &mut text)?;
        self.beyond = self.front;
        Ok(Item::Log(log, text.into()))
    }

    /// Adds what more of the front's log comes from this place on, as much as one append takes.
    /// Gives where that ends, and whether more may come.
    fn read_on(&mut self, mut at: u64, text: &mut Vec<u8>) -> io::Result<(u64, bool)> {
        while at < self.ring.len() {
            let (next, length) = self.head(at)?;
            if next != self.log || text.len() as u64 + length > limits::APPEND as u64 {
                return Ok((at, false));
            }
            self.read(at + HEAD as u64, length, text)?;
            at += HEAD as u64 + length;
        }
        Ok((at, true))
    }

    fn head(&self, at: u64) -> io::Result<(u32, u64)> {
        let mut head = [0; HEAD];
        self.ring.peek(at, &mut head)?;
        let [a, b, c, d, e, f, g, h] = head;
        let length = u32::from_le_bytes([e, f, g, h]);
        Ok((u32::from_le_bytes([a, b, c, d]), length.into()))
    }

    /// Reads so many bytes behind those that are in `into`.
    fn read(&self, at: u64, length: u64, into: &mut Vec<u8>) -> io::Result<()> {
        let there = into.len();
        let length = usize::try_from(length).map_err(io::Error::other)?;
        into.resize(there + length, 0);
        self.ring.peek(at, &mut into[there..])
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::poll_immediate;

    use super::*;

    fn spool(capacity: u64) -> Spool {
        Spool::new(tempfile::tempfile().unwrap(), capacity).unwrap()
    }

    fn log(name: &str) -> LogId {
        LogId::Task(name.into())
    }

    #[tokio::test]
    async fn neighbours_of_one_log_are_one_append_and_nothing_changes_places() {
        let spool = spool(10_000);
        let guest = Voice::Guest;
        spool.append(&log("a"), b"one ", guest).await.unwrap();
        spool.append(&log("a"), b"two", guest).await.unwrap();
        spool.event(b"{}").await.unwrap();
        spool.append(&log("a"), b"three", guest).await.unwrap();
        spool.append(&LogId::Job, b"four", guest).await.unwrap();
        spool.close();
        for expected in [
            Item::Log(log("a"), "one two".into()),
            Item::Event("{}".into()),
            Item::Log(log("a"), "three".into()),
            Item::Log(LogId::Job, "four".into()),
        ] {
            assert_eq!(spool.front().await.unwrap(), Some(expected));
            spool.pop();
        }
        assert_eq!(spool.front().await.unwrap(), None);
    }

    #[tokio::test]
    async fn who_looks_ahead_takes_nothing_away() {
        let spool = spool(10_000);
        let guest = Voice::Guest;
        spool.append(&log("a"), b"one ", guest).await.unwrap();
        spool.front().await.unwrap();
        let (mut ahead, mut front) = (Vec::new(), Vec::new());
        let mut waits = Box::pin(spool.beyond(&mut ahead));
        assert!(poll_immediate(&mut waits).await.is_none());
        spool.append(&log("a"), b"two ", guest).await.unwrap();
        assert!(waits.await.unwrap());
        spool.append(&log("a"), b"three", guest).await.unwrap();
        assert!(spool.beyond(&mut ahead).await.unwrap());
        assert_eq!(ahead, b"two three");
        assert!(spool.more(&mut front).await.unwrap());
        assert_eq!(front, b"two three");
        spool.event(b"{}").await.unwrap();
        assert!(!spool.beyond(&mut ahead).await.unwrap());
        spool.pop();
        assert_eq!(spool.front().await.unwrap(), Some(Item::Event("{}".into())));
    }

    #[tokio::test]
    async fn no_append_is_longer_than_a_server_takes() {
        let spool = spool(3 << 20);
        let much = vec![b'x'; (1 << 20) + (1 << 19)];
        spool.append(&log("a"), &much, Voice::Guest).await.unwrap();
        spool.close();
        let mut got = 0;
        while let Some(Item::Log(_, bytes)) = spool.front().await.unwrap() {
            assert!(bytes.len() <= limits::APPEND);
            got += bytes.len();
            spool.pop();
        }
        assert_eq!(got, much.len());
    }

    #[tokio::test]
    async fn a_full_spool_holds_the_guest_up_and_not_kiln() {
        let spool = spool(100);
        let a = log("a");
        spool.append(&a, &[1; 80], Voice::Guest).await.unwrap();
        let more = spool.append(&a, &[2; 80], Voice::Guest);
        tokio::pin!(more);
        assert!(poll_immediate(&mut more).await.is_none(), "there was room");
        spool.append(&a, &[3; 80], Voice::Kiln).await.unwrap();
        spool.event(b"{}").await.unwrap();
        spool.front().await.unwrap();
        spool.pop();
        more.await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_for_room_is_told_when_nobody_reads_any_more() {
        let spool = spool(100);
        let a = log("a");
        spool.append(&a, &[1; 80], Voice::Guest).await.unwrap();
        let waiting = spool.append(&a, &[2; 80], Voice::Guest);
        let (told, ()) = tokio::join!(waiting, async { spool.break_off() });
        assert!(matches!(told, Err(ReportError::Refused)));
    }
}
