//! How many connections a listener has at once.
//!
//! A connection that nobody uses just now takes the place of one that somebody wants: where
//! most places are taken, those that wait for another request end.

use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, getrlimit};
use tokio::sync::{Notify, watch};

/// At least so many, however few files this process may have open.
const LEAST: usize = 4096;

/// The most connections that a listener has: half of what this process may have open is for
/// each, for there is hardly ever more than one that many come to.
fn most() -> usize {
    let files = getrlimit(Resource::Nofile).current;
    let half = files.map_or(usize::MAX, |files| {
        usize::try_from(files / 2).unwrap_or(usize::MAX)
    });
    half.max(LEAST)
}

/// Places for connections.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    taken: Mutex<usize>,
    /// A place was given back.
    free: Notify,
    crowded: watch::Sender<bool>,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(Room);

impl Default for Room {
    fn default() -> Self {
        Self::of(most())
    }
}

impl Room {
    /// For so many.
    pub(super) fn of(most: usize) -> Self {
        Self(Arc::new(Inner {
            most,
            taken: Mutex::new(0),
            free: Notify::new(),
            crowded: watch::Sender::new(false),
        }))
    }

    /// Waits for a place. One at a time waits.
    pub(super) async fn take(&self) -> Place {
        while !self.change(|taken| match *taken < self.0.most {
            true => {
                *taken += 1;
                true
            }
            false => false,
        }) {
            self.0.free.notified().await;
        }
        Place(self.clone())
    }

    fn change<T>(&self, change: impl FnOnce(&mut usize) -> T) -> T {
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut taken);
        let crowded = *taken > self.0.most / 4 * 3;
        self.0
            .crowded
            .send_if_modified(|known| std::mem::replace(known, crowded) != crowded);
        changed
    }
}

impl Place {
    /// Whether more than three quarters of all places are taken.
    pub(super) fn is_wanted(&self) -> bool {
        *self.0.0.crowded.borrow()
    }

    /// Waits until they are, and are so when this is `used`.
    pub(super) async fn wanted(&self, used: impl Fn() -> bool) {
        let mut crowded = self.0.0.crowded.subscribe();
        while !(*crowded.borrow_and_update() && used()) {
            // It can't fail: the sender is here.
            let _ = crowded.changed().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.change(|taken| *taken -= 1);
        self.0.0.free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::poll_immediate;

    use super::*;

    #[tokio::test]
    async fn there_is_room_for_so_many_and_then_for_as_many_as_go() {
        let room = Room::of(2);
        let (first, _second) = (room.take().await, room.take().await);
        let mut third = Box::pin(room.take());
        assert!(poll_immediate(&mut third).await.is_none());
        drop(first);
        third.await;
    }

    #[tokio::test]
    async fn a_place_is_wanted_when_most_are_taken() {
        let room = Room::of(8);
        let mut places = Vec::new();
        for _ in 0..6 {
            places.push(room.take().await);
        }
        assert!(!places[0].is_wanted());
        let mut wanted = Box::pin(places[0].wanted(|| true));
        assert!(poll_immediate(&mut wanted).await.is_none());
        let last = room.take().await;
        wanted.await;
        let unused = Box::pin(places[0].wanted(|| false));
        assert!(places[0].is_wanted() && poll_immediate(unused).await.is_none());
        drop(last);
        assert!(!places[0].is_wanted());
    }

    #[test]
    fn there_are_never_few() {
        assert!(most() >= LEAST);
    }
}
