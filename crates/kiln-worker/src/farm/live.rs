//! Bytes of logs on their way to those who read them as they grow, before they are appended.
//!
//! They go over the socket, few at once, and only while the server answers soon: renewals are
//! behind them in the same connection. Nothing waits for them; what finds no room is not sent.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kiln_core::farm::Fence;
use kiln_wire::{
    live::{BYTES, Live, WINDOW},
    message::Gather,
};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard, mpsc, watch};

use crate::LogId;

/// Pieces that wait for the socket.
const WAITING: usize = 16;
/// Between two of a job's turns.
const PAUSE: Duration = Duration::from_millis(50);

/// The way from all jobs to the socket.
pub(super) struct Lives {
    gather: watch::Sender<Option<Gather>>,
    sender: mpsc::Sender<Live>,
    receiver: AsyncMutex<mpsc::Receiver<Live>>,
}

impl Lives {
    pub fn new() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self {
            gather: watch::Sender::new(None),
            sender,
            receiver: AsyncMutex::new(receiver),
        }
    }

    /// The server says how long logs are to be gathered.
    pub fn gather(&self, gather: Option<Gather>) {
        self.gather.send_replace(gather);
    }

    /// What one connection sends.
    pub async fn outgoing(&self) -> Outgoing<'_> {
        let mut waiting = self.receiver.lock().await;
        // What waited for another connection is old.
        while waiting.try_recv().is_ok() {}
        Outgoing {
            waiting,
            unanswered: 0,
        }
    }

    /// The way of one job.
    pub fn of_job(&self, fence: Fence) -> JobLive {
        JobLive {
            fence,
            gather: self.gather.subscribe(),
            sender: self.sender.clone(),
            sent: HashMap::new(),
            last: None,
        }
    }
}

/// One connection's end.
pub(super) struct Outgoing<'a> {
    waiting: MutexGuard<'a, mpsc::Receiver<Live>>,
    unanswered: usize,
}

impl Outgoing<'_> {
    /// The server has passed one on.
    pub fn passed(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    /// The next to send, once the server has answered enough of them.
    pub async fn next(&mut self) -> Live {
        if self.unanswered < WINDOW
            && let Some(live) = self.waiting.recv().await
        {
            self.unanswered += 1;
            return live;
        }
        std::future::pending().await
    }
}

/// One job's end.
pub(super) struct JobLive {
    fence: Fence,
    gather: watch::Receiver<Option<Gather>>,
    sender: mpsc::Sender<Live>,
    /// How far each log was sent.
    sent: HashMap<LogId, u64>,
    last: Option<Instant>,
}

impl JobLive {
    /// How long logs are gathered now.
    pub fn gather(&self) -> Option<Gather> {
        *self.gather.borrow()
    }

    /// When more may be sent, if it is not now.
    pub fn turn(&self) -> Option<Instant> {
        self.last.map(|last| last + PAUSE)
    }

    /// Sends what was not sent of a log, which has these bytes at this place. Whether all
    /// of it is on its way.
    pub fn send(&mut self, log: &LogId, at: u64, bytes: &[u8]) -> bool {
        let end = at + bytes.len() as u64;
        let from = self.sent.get(log).copied().unwrap_or(at).clamp(at, end);
        if from == end {
            return true;
        }
        if self.turn().is_some_and(|turn| turn > Instant::now()) {
            return false;
        }
        self.last = Some(Instant::now());
        let mut offset = from;
        let rest = usize::try_from(from - at).unwrap_or(usize::MAX);
        let pieces = bytes[rest.min(bytes.len())..].chunks(BYTES);
        // No more than the socket takes at once: other jobs have something to show, too.
        for piece in pieces.take(WINDOW) {
            let live = Live {
                fence: self.fence,
                offset,
                task: log.task().unwrap_or_default().to_owned(),
                bytes: Bytes::copy_from_slice(piece),
            };
            if self.sender.try_send(live).is_err() {
                break;
            }
            offset += piece.len() as u64;
        }
        self.sent.insert(log.clone(), offset);
        offset == end
    }
}
