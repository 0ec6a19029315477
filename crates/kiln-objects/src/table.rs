//! The logs in use: one lock and one file for each, and not more files than a process
//! may have.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{LogName, log::Log};

/// So many are kept when nobody uses them.
const IDLE: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Table {
    logs: Mutex<Logs>,
}

#[derive(Debug, Default)]
struct Logs {
    by_name: HashMap<LogName, Used>,
    /// Counts uses.
    clock: u64,
    /// At how many to look next for those that nobody uses.
    sweep_at: usize,
}

#[derive(Debug)]
struct Used {
    log: Arc<Log>,
    last: u64,
}

impl Used {
    /// References come from the table alone, whose lock is held here.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.log) == 1 && !self.log.is_watched()
    }
}

impl Table {
    pub(crate) fn get(&self, name: &LogName, root: &Path, path: PathBuf) -> Arc<Log> {
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
        let log = Arc::new(Log::new(root.to_owned(), path));
        let used = Used {
            log: Arc::clone(&log),
            last: now,
        };
        logs.by_name.insert(name.clone(), used);
        log
    }
}

impl Logs {
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

    use super::*;

    #[test]
    fn logs_that_nobody_uses_are_let_go_and_those_in_use_are_kept() {
        let table = Table::default();
        let get = |job| {
            let path = PathBuf::from(format!("/nowhere/{job}"));
            table.get(&LogName::Job(JobId(job)), Path::new("/nowhere"), path)
        };
        let held = get(0);
        let watcher = get(1).watch();
        for job in 2..5000 {
            get(job);
        }
        assert!(table.logs.lock().unwrap().by_name.len() <= 2 * IDLE);
        assert!(Arc::ptr_eq(&held, &get(0)));
        assert!(get(1).is_watched());
        drop(watcher);
    }
}
