//! Bytes of logs on their way to those who read them as they grow, before they are stored.
//!
//! ```text
//!   log:      |.......... stored ..........|........ shown early ........|.. ahead ..|
//!                                       verified                        at
//! ```
//!
//! They come best effort: some are lost, some come twice, some before what they follow. A
//! reader is shown those that fit exactly at its end, and once they are stored they are
//! compared: what was shown and then came otherwise, or not at all, ends the reader's
//! stream with an error.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use bytes::{Buf as _, Bytes};
use kiln_core::farm::LogName;
use tokio::sync::broadcast;

use super::SWEEP;

/// Pieces that wait for one who reads.
const WAITING: usize = 64;
/// Pieces beyond a reader's end that are kept for it.
const AHEAD: usize = 64;
/// The most bytes that are shown before they are stored; `kiln logs` keeps as many.
const SHOWN: u64 = 2 << 20;

/// Some of a log's bytes.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
}

/// Those who listen, by log.
#[derive(Debug, Default)]
pub(super) struct Live(Mutex<Listeners>);

#[derive(Debug, Default)]
struct Listeners {
    by_log: HashMap<LogName, broadcast::Sender<Piece>>,
    sweep_at: usize,
}

impl Live {
    pub(super) fn listen(&self, log: &LogName) -> broadcast::Receiver<Piece> {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.by_log.len() >= listeners.sweep_at.max(SWEEP) {
            listeners
                .by_log
                .retain(|_, sender| sender.receiver_count() > 0);
            listeners.sweep_at = 2 * listeners.by_log.len();
        }
        let sender = listeners.by_log.entry(log.clone());
        sender
            .or_insert_with(|| broadcast::Sender::new(WAITING))
            .subscribe()
    }

    pub(super) fn tell(&self, log: &LogName, offset: u64, bytes: &Bytes) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = bytes.clone();
        if let Some(sender) = listeners.by_log.get(log)
            && sender.send(Piece { offset, bytes }).is_err()
        {
            listeners.by_log.remove(log);
        }
    }
}

/// What one reader was shown early, and what may be shown next.
#[derive(Debug)]
pub(crate) struct Early {
    /// Where what was compared with what is stored ends.
    verified: u64,
    /// What was shown behind that.
    shown: VecDeque<Bytes>,
    /// Where that ends.
    at: u64,
    ahead: VecDeque<Piece>,
}

/// What was shown early came otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Otherwise;

impl Early {
    /// Of a reader who begins here.
    pub(crate) fn new(at: u64) -> Self {
        Self {
            verified: at,
            shown: VecDeque::new(),
            at,
            ahead: VecDeque::new(),
        }
    }

    /// From where on it is to be read what is stored.
    pub(crate) fn verified(&self) -> u64 {
        self.verified
    }

    /// Whether something was shown that has not been seen in what is stored.
    pub(crate) fn is_owed(&self) -> bool {
        self.at > self.verified
    }

    /// Something came.
    pub(crate) fn came(&mut self, piece: Piece) {
        if self.ahead.len() == AHEAD {
            self.ahead.pop_front();
        }
        self.ahead.push_back(piece);
    }

    /// Whether something may be shown now.
    pub(crate) fn fits(&self) -> bool {
        let fits = |piece: &Piece| piece.offset <= self.at && end(piece) > self.at;
        self.at - self.verified < SHOWN && self.ahead.iter().any(fits)
    }

    /// What may be shown now, if anything fits.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let at = self.at;
        self.ahead.retain(|piece| end(piece) > at);
        if at - self.verified >= SHOWN {
            return None;
        }
        let fits = self.ahead.iter().position(|piece| piece.offset <= at)?;
        let Piece { offset, mut bytes } = self.ahead.remove(fits)?;
        bytes.advance(usize::try_from(at - offset).ok()?);
        self.at += bytes.len() as u64;
        self.shown.push_back(bytes.clone());
        Some(bytes)
    }

    /// The next bytes are stored. Gives those that were not shown yet.
    pub(crate) fn stored(&mut self, mut bytes: Bytes) -> Result<Bytes, Otherwise> {
        while let Some(shown) = self.shown.front_mut() {
            let length = shown.len().min(bytes.len());
            if length == 0 {
                break;
            }
            if bytes.split_to(length) != shown.split_to(length) {
                return Err(Otherwise);
            }
            self.verified += length as u64;
            if shown.is_empty() {
                self.shown.pop_front();
            }
        }
        self.verified += bytes.len() as u64;
        self.at = self.at.max(self.verified);
        Ok(bytes)
    }
}

fn end(piece: &Piece) -> u64 {
    piece.offset.saturating_add(piece.bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(offset: u64, text: &str) -> Piece {
        Piece {
            offset,
            bytes: Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    #[test]
    fn what_fits_is_shown_once_and_what_comes_too_soon_when_it_fits() {
        let mut early = Early::new(3);
        early.came(piece(6, "ghi"));
        assert_eq!(early.next(), None);
        early.came(piece(2, "cde"));
        assert_eq!(early.next().unwrap(), "de");
        assert_eq!(early.stored("def".into()).unwrap(), "f");
        assert_eq!(early.next().unwrap(), "ghi");
        early.came(piece(6, "ghi"));
        assert_eq!(early.next(), None);
        assert!(early.is_owed());
        assert_eq!(early.stored("ghi".into()).unwrap(), "");
        assert!(!early.is_owed());
    }

    #[test]
    fn what_was_shown_and_comes_otherwise_is_found_out() {
        let mut early = Early::new(0);
        early.came(piece(0, "abc"));
        early.next().unwrap();
        assert_eq!(early.stored("ab".into()).unwrap(), "");
        assert_eq!(early.stored("x".into()), Err(Otherwise));
    }

    #[test]
    fn what_is_never_stored_is_shown_only_so_far() {
        let mut early = Early::new(0);
        let mut shown = 0;
        for _ in 0..1000 {
            let bytes = Bytes::from(vec![0; 16 << 10]);
            early.came(Piece {
                offset: shown,
                bytes,
            });
            shown += early.next().map_or(0, |bytes| bytes.len() as u64);
        }
        assert_eq!(shown, SHOWN);
        assert!(early.ahead.len() <= AHEAD);
    }

    proptest! {
        /// Whatever pieces of the log come, in whatever order, and however it is stored.
        #[test]
        fn a_reader_is_shown_the_log_and_nothing_else(
            log in prop::collection::vec(any::<u8>(), 1..200),
            steps in prop::collection::vec((any::<bool>(), 0usize..200, 1usize..40), 0..80),
        ) {
            let mut early = Early::new(0);
            let mut read = Vec::new();
            for (is_stored, from, length) in steps {
                if is_stored {
                    let from = usize::try_from(early.verified()).unwrap();
                    let to = (from + length).min(log.len());
                    let part = Bytes::copy_from_slice(&log[from..to]);
                    read.extend(early.stored(part).unwrap());
                } else {
                    let from = from % log.len();
                    let to = (from + length).min(log.len());
                    let bytes = Bytes::copy_from_slice(&log[from..to]);
                    early.came(Piece { offset: from as u64, bytes });
                }
                while let Some(bytes) = early.next() {
                    read.extend(bytes);
                }
                prop_assert_eq!(&read[..], &log[..read.len()]);
            }
            let rest = usize::try_from(early.verified()).unwrap();
            read.extend(early.stored(Bytes::copy_from_slice(&log[rest..])).unwrap());
            prop_assert_eq!(read, log);
        }
    }
}
