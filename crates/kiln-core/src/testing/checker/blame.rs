//! Jobs that ended otherwise than they should, and whether a fault explains it.

use super::{Attempt, Event, Facts, Job, Promises, Report, Rule};
use crate::job::JobStatus;

/// A fault's time.
struct Fault<'a> {
    touches: &'a [String],
    began: u64,
    ended: u64,
}

pub(super) fn check(facts: &Facts<'_>, promises: &Promises, report: &mut Report) {
    let faults = faults(facts, promises);
    for job in facts.jobs.values() {
        let (Some((at, status)), Some(submission)) = (job.ended, facts.submission(job)) else {
            continue;
        };
        report.look(Rule::Blame);
        if status == submission.expected || is_excused(job, status, at, &faults) {
            continue;
        }
        let says = format!(
            "it ended as {status} instead of {}, and no fault touched its worker",
            submission.expected
        );
        report.broken(Rule::Blame, Some(job.id), at, says);
    }
}

fn faults<'a>(facts: &Facts<'a>, promises: &Promises) -> Vec<Fault<'a>> {
    let mut faults = std::collections::BTreeMap::new();
    for entry in facts.entries {
        match &entry.event {
            Event::FaultBegan { fault, touches, .. } => {
                let fault_now = Fault {
                    touches,
                    began: entry.at,
                    ended: u64::MAX,
                };
                faults.insert(*fault, fault_now);
            }
            Event::FaultEnded { fault } => {
                if let Some(known) = faults.get_mut(fault) {
                    known.ended = entry.at.saturating_add(promises.aftermath);
                }
            }
            _ => {}
        }
    }
    faults.into_values().collect()
}

fn is_excused(job: &Job<'_>, status: JobStatus, ended: u64, faults: &[Fault<'_>]) -> bool {
    if status == JobStatus::Cancelled {
        let asked = |event: &Event| matches!(event, Event::CancelAsked { .. });
        return job.entries.iter().any(|entry| asked(&entry.event));
    }
    let touched = |attempt: &Attempt<'_>| {
        let until = attempt.released.unwrap_or(ended);
        faults.iter().any(|fault| {
            let its = fault.touches.iter().any(|part| part == attempt.worker);
            its && fault.began <= until && attempt.claimed <= fault.ended
        })
    };
    job.attempts.iter().any(touched)
}
