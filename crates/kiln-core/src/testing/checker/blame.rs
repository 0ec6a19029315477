//! Jobs that ended otherwise than they should, and whether a fault explains it.

use super::{Event, Facts, Job, Promises, Report, Rule};
use crate::job::JobStatus;

pub(super) fn check(facts: &Facts<'_>, promises: &Promises, report: &mut Report) {
    for job in facts.jobs.values() {
        let (Some((at, status)), Some(submission)) = (job.ended, facts.submission(job)) else {
            continue;
        };
        report.look(Rule::Blame);
        let is_right = match status {
            JobStatus::Cancelled => status == submission.expected || was_asked_for(job),
            status => status == submission.expected,
        };
        if is_right {
            continue;
        }
        if status == JobStatus::Failed && is_explained(facts, promises, job, at) {
            report.excused += 1;
            continue;
        }
        let says = format!(
            "it ended as {status} instead of {}, and no fault of its worker explains that",
            submission.expected
        );
        report.broken(Rule::Blame, Some(job.id), at, says);
    }
}

fn was_asked_for(job: &Job<'_>) -> bool {
    let asked = |event: &Event| matches!(event, Event::CancelAsked { .. });
    job.entries.iter().any(|entry| asked(&entry.event))
}

/// Whether a fault touched the worker while it had the last attempt, by which a job fails.
/// One that never began may have been given to a session that a fault had ended.
fn is_explained(facts: &Facts<'_>, promises: &Promises, job: &Job<'_>, ended: u64) -> bool {
    let Some(last) = job.attempts.last() else {
        return false;
    };
    let began = job
        .entries
        .iter()
        .any(|entry| matches!(entry.event, Event::Begun { fence, .. } if fence == last.fence));
    let since = match began {
        true => last.claimed,
        false => last.claimed.saturating_sub(promises.aftermath),
    };
    facts.touched(last.worker, since, last.released.unwrap_or(ended))
}
