//! The logs in use: what this process knows of each, with its lock, and not more of them
//! than it may have files.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::LogName;

/// So many are kept when nobody uses them.
const IDLE: usize = 256;

/// What may be watched.
pub(crate) trait Watched {
    /// Whether anybody does.
    fn is_watched(&self) -> bool;
}

#[derive(Debug)]
pub(crate) struct Table<L> {
    logs: Mutex<Logs<L>>,
}

#[derive(Debug)]
struct Logs<L> {
    by_name: HashMap<LogName, Used<L>>,
    /// Counts uses.
    clock: u64,
    /// At how many to look next for those that nobody uses.
    sweep_at: usize,
}

#[derive(Debug)]
struct Used<L> {
    log: Arc<L>,
    last: u64,
}

impl<L> Default for Table<L> {
    fn default() -> Self {
        Self {
            logs: Mutex::new(Logs {
                by_name: HashMap::new(),
                clock: 0,
                sweep_at: 0,
            }),
        }
    }
}

impl<L: Watched> Used<L> {
    /// References come from the table alone, whose lock is held here.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.log) == 1 && !self.log.is_watched()
    }
}

impl<L: Watched> Table<L> {
    pub(crate) fn get(&self, name: &LogName, make: impl FnOnce() -> L) -> Arc<L> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.clock += 1;
        let now = logs.clock;
        if let Some(used) = logs.by_name.get_mut(name) {
            used.last = now;
            return Arc::clone(&used.log);
        }
        if logs.by_name.len() >= logs.sweep_at.max(IDLE) {
            logs.sweep();
        }
        let log = Arc::new(make());
        let used = Used {
            log: Arc::clone(&log),
            last: now,
        };
        logs.by_name.insert(name.clone(), used);
        log
    }
}

impl<L: Watched> Logs<L> {
    /// Lets go of those that nobody uses, but for the half that was used last.
    fn sweep(&mut self) {
        let idle = self.by_name.values().filter(|used| used.is_idle());
        let mut uses: Vec<u64> = idle.map(|used| used.last).collect();
        uses.sort_unstable();
        let keep = uses.len().min(IDLE / 2);
        let oldest = uses.get(uses.len() - keep).copied().unwrap_or(u64::MAX);
        self.by_name
            .retain(|_, used| !used.is_idle() || used.last >= oldest);
        // Where all are in use, not each new one looks at all of them.
        self.sweep_at = self.by_name.len() + IDLE / 2;
    }
}

#[cfg(test)]
mod tests {
    use kiln_core::farm::JobId;
    use tokio::sync::watch;

    use super::*;

    impl Watched for watch::Sender<u64> {
        fn is_watched(&self) -> bool {
            self.receiver_count() > 0
        }
    }

    #[test]
    fn logs_that_nobody_uses_are_let_go_and_those_in_use_are_kept() {
        let table = Table::default();
        let get = |job| table.get(&LogName::Job(JobId(job)), || watch::Sender::new(0));
        let held = get(0);
        let watcher = get(1).subscribe();
        for job in 2..5000 {
            get(job);
        }
        assert!(table.logs.lock().unwrap().by_name.len() <= 2 * IDLE);
        assert!(Arc::ptr_eq(&held, &get(0)));
        assert!(get(1).is_watched());
        drop(watcher);
    }
}
