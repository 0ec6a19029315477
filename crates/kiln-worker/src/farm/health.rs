//! A worker that fails jobs for reasons of its own would draw in all of a farm's
//! jobs and fail them within seconds. So it takes none until it is well again.
//!
//! ```text
//! Ready ── a failure that is surely its own, or three that may be ──► Unwell
//!   ▲                                                                   │
//!   └────────────── the host says that it could start guests ◄──────────┘ 1 s … 5 min
//! ```
//!
//! A job is given back without counting as tried when the failure surely was the
//! worker's, but only once: one that fails everywhere must end some day.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kiln_core::farm::JobId;
use kiln_vm::machine::StartError;
use tokio::sync::watch;

use super::{
    backoff::{self, Backoff},
    worker::Worker,
};

/// So many failures in a row that may be a job's, or an image's.
const DOUBTFUL: u32 = 3;
/// So many jobs are remembered that were given back without counting.
const SPARED: usize = 256;

/// Whose failure it was that a job did not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The worker's, as far as it can see.
    Worker,
    /// The worker's, the image's or the job's.
    Unclear,
}

impl Blame {
    pub fn of(error: &StartError) -> Self {
        match error {
            StartError::Host(_) | StartError::Image(_) => Self::Worker,
            StartError::Gone { .. } | StartError::NoLogin { .. } => Self::Unclear,
        }
    }
}

/// Whether a worker is well.
pub(super) struct Health {
    unwell: watch::Sender<Option<String>>,
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    doubtful: u32,
    /// Whether a job has begun since it was unwell last.
    good: bool,
    /// Jobs that were given back without counting.
    spared: VecDeque<JobId>,
}

impl Health {
    pub fn new() -> Self {
        Self {
            unwell: watch::Sender::new(None),
            record: Mutex::default(),
        }
    }

    /// Why it is not.
    pub fn unwell(&self) -> Option<String> {
        self.unwell.borrow().clone()
    }

    /// A job has begun here.
    pub fn good(&self) {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.doubtful = 0;
        record.good = true;
    }

    /// A job could not begin here. Whether that counts as one of its attempts.
    pub fn bad(&self, blame: Blame, job: JobId, reason: &str) -> bool {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.doubtful += 1;
        let counts = blame == Blame::Unclear || record.spared.contains(&job);
        if !counts {
            record.spared.push_back(job);
            if record.spared.len() > SPARED {
                record.spared.pop_front();
            }
        }
        let unwell = blame == Blame::Worker || record.doubtful >= DOUBTFUL;
        drop(record);
        if unwell {
            self.unwell.send_replace(Some(reason.to_owned()));
        }
        counts
    }

    /// Whether a job has begun since this was asked last.
    fn was_good(&self) -> bool {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut record.good)
    }

    fn well(&self) {
        // What is doubtful stays so until a job has begun.
        self.unwell.send_replace(None);
    }
}

/// Asks the host of an unwell worker until it is well, again and again.
pub(super) async fn watch(worker: &Worker) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
    let mut unwell = worker.health.unwell.subscribe();
    while unwell.wait_for(Option::is_some).await.is_ok() {
        if worker.health.was_good() {
            backoff.reset();
        }
        if let Some(reason) = worker.health.unwell() {
            tracing::error!("this worker takes no jobs until it is well: {reason}");
        }
        worker.tell();
        loop {
            backoff::wait(&mut backoff).await;
            match worker.host.check().await {
                Ok(()) => break,
                Err(reason) => {
                    worker.health.unwell.send_replace(Some(reason));
                    worker.tell();
                }
            }
        }
        worker.health.well();
        tracing::info!("this worker takes jobs again");
        worker.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(health: &Health, blame: Blame, job: i32) -> (bool, bool) {
        let counts = health.bad(blame, JobId(job), "why");
        (counts, health.unwell().is_some())
    }

    #[test]
    fn three_doubts_in_a_row_are_one_certainty() {
        let health = Health::new();
        assert_eq!(bad(&health, Blame::Unclear, 1), (true, false));
        assert_eq!(bad(&health, Blame::Unclear, 2), (true, false));
        health.good();
        assert_eq!(bad(&health, Blame::Unclear, 3), (true, false));
        assert_eq!(bad(&health, Blame::Unclear, 4), (true, false));
        assert_eq!(bad(&health, Blame::Unclear, 5), (true, true));
        health.well();
        assert_eq!(health.unwell(), None);
    }

    #[test]
    fn a_job_is_spared_once() {
        let health = Health::new();
        assert_eq!(bad(&health, Blame::Worker, 1), (false, true));
        health.well();
        assert_eq!(bad(&health, Blame::Worker, 2), (false, true));
        assert_eq!(bad(&health, Blame::Worker, 1), (true, true));
    }
}
