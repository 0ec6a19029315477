//! Whether renewals can be received, as [`kiln_core::farm::reception`] decides, by this
//! host's clock.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kiln_core::farm::reception;
use kiln_store::model::Moment;
use rustix::time::{ClockId, clock_gettime};

/// Whether renewals can be received, and since when.
#[derive(Debug, Default)]
pub(crate) struct Reception(Mutex<reception::Reception>);

impl Reception {
    /// Looked at each second: the database answers, and says that it is so late. Tells
    /// whether it did for one whole lease.
    pub(crate) fn is_whole(&self, clock: Moment) -> bool {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.is_whole(now(), clock.0)
    }

    /// What the database's clock said before it was put forward, and by how much, until
    /// [`Self::moved`] is said.
    pub(crate) fn put_forward(&self) -> Option<(Moment, Duration)> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, by) = heard.put_forward()?;
        Some((Moment(before), by))
    }

    /// What was begun before the clock was put forward begins as much later.
    pub(crate) fn moved(&self) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.moved();
    }

    /// The database did not answer.
    pub(crate) fn broke_off(&self) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.broke_off();
    }
}

/// It goes on while the host sleeps, or this process is stopped.
fn now() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default()
}
