//! An index in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use kiln_core::farm::{Fence, JobId, LeaseKey, LogName};

use crate::{Held, Index, IndexError, NewPiece, PackedLog, Piece};

/// An index in memory. Every lease is of one job, and holds until it is ended.
#[derive(Debug)]
pub struct MemoryIndex {
    job: JobId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    logs: BTreeMap<LogName, (Vec<Piece>, bool)>,
    ended: BTreeSet<i64>,
}

impl MemoryIndex {
    /// One in which all leases are this job's.
    #[must_use]
    pub fn new(job: JobId) -> Self {
        Self {
            job,
            state: Mutex::default(),
        }
    }

    /// Ends a lease.
    pub fn end_lease(&self, fence: Fence) {
        self.state().ended.insert(fence.0);
    }

    /// Adds text as lines of their own, as a transaction of the farm does. Gives where the log
    /// ends then.
    pub fn add_text(&self, log: &LogName, text: &str) -> u64 {
        let mut state = self.state();
        let mid_line = state.logs.get(log).is_some_and(|(_, mid_line)| *mid_line);
        let text = match mid_line {
            true => format!("\n{text}"),
            false => text.to_owned(),
        };
        let length = text.len() as u64;
        state.add(log, length, Held::Text(Bytes::from(text)), false)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end(&self, log: &LogName) -> u64 {
        let pieces = self.logs.get(log).map(|(pieces, _)| pieces);
        pieces
            .and_then(|pieces| pieces.last())
            .map_or(0, Piece::end)
    }

    fn add(&mut self, log: &LogName, length: u64, held: Held, mid_line: bool) -> u64 {
        let start = self.end(log);
        let (pieces, ends) = self.logs.entry(log.clone()).or_default();
        pieces.push(Piece {
            start,
            length,
            // It has no clock: pieces come one after another.
            time: pieces.len() as i64,
            held,
        });
        *ends = mid_line;
        start + length
    }
}

#[async_trait]
impl Index for MemoryIndex {
    async fn holds(&self, lease: LeaseKey<'_>) -> Result<JobId, IndexError> {
        match self.state().ended.contains(&lease.fence.0) {
            true => Err(IndexError::LeaseLost),
            false => Ok(self.job),
        }
    }

    async fn end(&self, log: &LogName) -> Result<u64, IndexError> {
        Ok(self.state().end(log))
    }

    async fn pieces(&self, log: &LogName, from: u64, most: u32) -> Result<Vec<Piece>, IndexError> {
        let state = self.state();
        let Some((pieces, _)) = state.logs.get(log) else {
            return Ok(Vec::new());
        };
        let pieces = pieces.iter().filter(|piece| piece.end() > from);
        Ok(pieces.take(most as usize).cloned().collect())
    }

    async fn commit(
        &self,
        lease: LeaseKey<'_>,
        log: &LogName,
        piece: &NewPiece,
    ) -> Result<(), IndexError> {
        let mut state = self.state();
        if state.ended.contains(&lease.fence.0) || log.job() != self.job {
            return Err(IndexError::LeaseLost);
        }
        let stored = state.end(log);
        if stored != piece.start {
            return Err(IndexError::Offset { stored });
        }
        let held = Held::Object {
            key: piece.key.clone(),
            sha256: piece.sha256.clone(),
        };
        state.add(log, piece.length, held, piece.mid_line);
        Ok(())
    }

    async fn begin(
        &self,
        lease: LeaseKey<'_>,
        log: &LogName,
        text: &str,
    ) -> Result<u64, IndexError> {
        if self.holds(lease).await? != log.job() {
            return Err(IndexError::LeaseLost);
        }
        let stored = self.state().end(log);
        match stored {
            0 => Ok(self.add_text(log, text)),
            stored => Ok(stored),
        }
    }

    async fn pack(&self, log: &LogName, packed: &PackedLog) -> Result<(), IndexError> {
        let mut state = self.state();
        let stored = state.end(log);
        let pieces = state.logs.get_mut(log).map(|(pieces, _)| pieces);
        let Some(pieces) = pieces.filter(|_| stored == packed.stored) else {
            return Err(IndexError::Offset { stored });
        };
        if matches!(pieces[0].held, Held::Packed { .. }) {
            return Err(IndexError::Offset { stored });
        }
        *pieces = vec![Piece {
            start: 0,
            length: stored,
            time: 0,
            held: Held::Packed {
                key: packed.key.clone(),
                length: packed.length,
            },
        }];
        Ok(())
    }
}
