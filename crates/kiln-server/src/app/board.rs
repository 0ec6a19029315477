//! What the sessions of this server's sockets were told of their leases.
//!
//! One look at all leases of the farm is compared with it each second, so that what ten
//! thousand sessions cost is a query and not ten thousand.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use kiln_core::farm::{Fence, SessionId};
use tokio::sync::Notify;

/// After how many the first look for those who are gone.
const SWEEP: usize = 64;

/// The sessions of this server's sockets.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<Seats>);

#[derive(Debug, Default)]
struct Seats {
    by_session: HashMap<SessionId, Weak<Seat>>,
    sweep_at: usize,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Seat {
    /// The leases of which it was told.
    known: Mutex<HashSet<Fence>>,
    behind: Notify,
    /// Another has taken its place.
    replaced: Notify,
}

impl Board {
    /// A session's seat from now on; one before it, whose end nobody has noticed yet, is told to
    /// go, so that no lease is offered on two. It is behind until it looked once.
    pub(crate) fn take(&self, session: &SessionId, known: HashSet<Fence>) -> Arc<Seat> {
        let seat = Arc::new(Seat {
            known: Mutex::new(known),
            behind: Notify::new(),
            replaced: Notify::new(),
        });
        seat.behind.notify_one();
        let mut seats = self.lock();
        if seats.by_session.len() >= seats.sweep_at.max(SWEEP) {
            seats.by_session.retain(|_, seat| seat.strong_count() > 0);
            seats.sweep_at = 2 * seats.by_session.len();
        }
        let before = seats
            .by_session
            .insert(session.clone(), Arc::downgrade(&seat));
        if let Some(before) = before.and_then(|before| before.upgrade()) {
            before.replaced.notify_one();
        }
        seat
    }

    pub(crate) fn is_empty(&self) -> bool {
        let seats = self.lock();
        seats
            .by_session
            .values()
            .all(|seat| seat.strong_count() == 0)
    }

    /// Wakes those whose leases, of all that there are, are not those of which they were
    /// told.
    pub(crate) fn compare(&self, leases: Vec<(SessionId, Fence)>) {
        let mut there: HashMap<SessionId, HashSet<Fence>> = HashMap::new();
        for (session, fence) in leases {
            there.entry(session).or_default().insert(fence);
        }
        let none = HashSet::new();
        for (session, seat) in &self.lock().by_session {
            let Some(seat) = seat.upgrade() else { continue };
            if seat.known(|known| known != there.get(session).unwrap_or(&none)) {
                seat.behind.notify_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Does something with the leases of which it was told.
    pub(crate) fn known<T>(&self, with: impl FnOnce(&mut HashSet<Fence>) -> T) -> T {
        with(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until another has taken its place.
    pub(crate) async fn is_replaced(&self) {
        self.replaced.notified().await;
    }

    /// Waits until it is behind.
    pub(crate) async fn is_behind(&self) {
        self.behind.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn session(number: u8) -> SessionId {
        SessionId::new([number; 16])
    }

    fn fences(numbers: &[i64]) -> HashSet<Fence> {
        numbers.iter().copied().map(Fence).collect()
    }

    fn is_behind(seat: &Seat) -> bool {
        seat.is_behind().now_or_never().is_some()
    }

    #[test]
    fn a_session_is_behind_at_first_and_when_its_leases_are_not_those_it_was_told() {
        let board = Board::default();
        let one = board.take(&session(1), fences(&[]));
        let two = board.take(&session(2), fences(&[7]));
        assert!(is_behind(&one) && is_behind(&two));
        board.compare(vec![(session(2), Fence(7)), (session(3), Fence(8))]);
        assert!(!is_behind(&one) && !is_behind(&two));
        board.compare(vec![(session(1), Fence(9)), (session(2), Fence(7))]);
        assert!(is_behind(&one) && !is_behind(&two));
        one.known(|known| known.insert(Fence(9)));
        board.compare(vec![(session(1), Fence(9))]);
        assert!(!is_behind(&one) && is_behind(&two), "one was taken away");
    }

    #[test]
    fn who_held_a_seat_is_told_when_another_takes_it() {
        let board = Board::default();
        let one = board.take(&session(1), fences(&[]));
        let _other = board.take(&session(2), fences(&[]));
        assert!(one.is_replaced().now_or_never().is_none());
        let again = board.take(&session(1), fences(&[]));
        assert!(one.is_replaced().now_or_never().is_some());
        assert!(again.is_replaced().now_or_never().is_none());
    }

    #[test]
    fn nothing_is_kept_of_sessions_that_went() {
        let board = Board::default();
        for number in 0..=255 {
            for other in 0..10 {
                let mut name = [number; 16];
                name[0] = other;
                board.take(&SessionId::new(name), fences(&[]));
            }
        }
        assert!(board.is_empty());
        assert!(board.lock().by_session.len() <= 2 * SWEEP);
    }
}
