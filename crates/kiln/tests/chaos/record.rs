//! Where all witnesses write down what they saw.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use kiln_core::{
    farm::JobId,
    testing::history::{Entry, Event},
};

/// In reports of workers, until the database says which job a fence is of.
pub const UNKNOWN: JobId = JobId(0);

/// Entries, in any order.
#[derive(Clone, Default)]
pub struct Record(Arc<Mutex<Vec<Entry>>>);

impl Record {
    /// It happens now.
    pub fn say(&self, event: Event) {
        self.put([Entry { at: now(), event }]);
    }

    pub fn put(&self, entries: impl IntoIterator<Item = Entry>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(entries);
    }

    /// All that was written so far.
    pub fn entries(&self) -> Vec<Entry> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Microseconds since 1970 by the host's clock, which the database and the guests have
/// too, and no fault touches.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.expect("after 1970").as_micros();
    u64::try_from(micros).expect("before the year 500000")
}
