//! What waits to be sent: each thing once, and not more than a second's worth.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::Hint;

/// So many hints wait at the most.
const HINTS: usize = 8192;
/// And so many live bytes.
const LIVE: usize = 4 << 20;

/// What waits to be sent.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    some: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    open: bool,
    hints: Vec<Hint>,
    /// Those of `hints` that say nothing new when they are said again.
    names: HashSet<Hint>,
    live: usize,
}

impl Outbox {
    /// From now on hints are kept, or not: what nobody sends is old soon.
    pub(crate) fn open(&self, open: bool) {
        let mut waiting = self.lock();
        *waiting = Waiting {
            open,
            ..Waiting::default()
        };
    }

    /// Adds a hint, if there is room.
    pub(crate) fn push(&self, hint: Hint) {
        let mut waiting = self.lock();
        if !waiting.open || waiting.hints.len() >= HINTS {
            return;
        }
        match &hint {
            Hint::Live { bytes, .. } if waiting.live + bytes.len() > LIVE => return,
            Hint::Live { bytes, .. } => waiting.live += bytes.len(),
            name if waiting.names.contains(name) => return,
            name => {
                waiting.names.insert(name.clone());
            }
        }
        waiting.hints.push(hint);
        drop(waiting);
        self.some.notify_one();
    }

    /// Waits until there are some, and takes all of them.
    pub(crate) async fn take(&self) -> Vec<Hint> {
        loop {
            {
                let mut waiting = self.lock();
                if !waiting.hints.is_empty() {
                    waiting.names.clear();
                    waiting.live = 0;
                    return std::mem::take(&mut waiting.hints);
                }
            }
            self.some.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use kiln_core::farm::{JobId, LogName};

    use super::*;

    fn live(offset: u64) -> Hint {
        Hint::Live {
            log: LogName::Job(JobId(1)),
            offset,
            bytes: vec![0; 16 << 10].into(),
        }
    }

    #[tokio::test]
    async fn what_is_said_twice_before_it_is_sent_is_sent_once() {
        let outbox = Outbox::default();
        outbox.open(true);
        for job in [1, 2, 1, 2, 1] {
            outbox.push(Hint::Job(JobId(job)));
        }
        assert_eq!(outbox.take().await.len(), 2);
        outbox.push(Hint::Job(JobId(1)));
        assert_eq!(outbox.take().await.len(), 1);
    }

    #[tokio::test]
    async fn it_is_bounded_whatever_is_said() {
        let outbox = Outbox::default();
        outbox.open(true);
        for at in 0..1000 {
            outbox.push(live(at));
        }
        assert_eq!(outbox.take().await.len(), LIVE / (16 << 10));
        for job in 0..100_000 {
            outbox.push(Hint::Job(JobId(job)));
        }
        assert_eq!(outbox.take().await.len(), HINTS);
    }

    #[tokio::test]
    async fn what_was_said_while_nobody_could_hear_it_is_not_sent_late() {
        let outbox = Outbox::default();
        outbox.push(Hint::Job(JobId(1)));
        outbox.open(true);
        outbox.push(Hint::Job(JobId(2)));
        outbox.open(false);
        outbox.open(true);
        outbox.push(Hint::Job(JobId(3)));
        assert_eq!(outbox.take().await, [Hint::Job(JobId(3))]);
    }
}
