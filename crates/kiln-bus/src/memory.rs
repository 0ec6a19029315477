//! A bus between servers of one process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::{Bus, Heard, Hint, Status, Way};

/// How many hints wait for a subscription that does not listen.
pub(crate) const BACKLOG: usize = 4096;

/// Where members of one process meet.
#[derive(Debug, Clone, Default)]
pub struct Hub(Arc<Mutex<Vec<broadcast::Sender<Heard>>>>);

impl Hub {
    /// One more member. It leaves when its last clone is dropped.
    #[must_use]
    pub fn join(&self) -> Bus {
        let mine = broadcast::Sender::new(BACKLOG);
        self.members().push(mine.clone());
        let hub = self.clone();
        Bus {
            way: Arc::new(Memory { hub, mine }),
        }
    }

    fn members(&self) -> MutexGuard<'_, Vec<broadcast::Sender<Heard>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One member.
#[derive(Debug)]
struct Memory {
    hub: Hub,
    mine: broadcast::Sender<Heard>,
}

impl Way for Memory {
    fn publish(&self, hint: Hint) {
        for member in self
            .hub
            .members()
            .iter()
            .filter(|member| !member.same_channel(&self.mine))
        {
            // Nobody listens there: that is as it may be.
            let _ = member.send(Heard::Hint(hint.clone()));
        }
    }

    fn subscribe(&self) -> broadcast::Receiver<Heard> {
        self.mine.subscribe()
    }

    fn status(&self) -> Status {
        Status::Well
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let mut members = self.hub.members();
        members.retain(|member| !member.same_channel(&self.mine));
    }
}
