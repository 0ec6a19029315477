//! Jobs that ended otherwise than they should, and whether a fault explains it.

use super::{Attempt, Event, Facts, Job, Promises, Report, Rule};
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

/// Whether a fault touched the worker while it had the attempt by which a job fails. One
/// that never began fails by as many as there may be: each of them counts.
fn is_explained(facts: &Facts<'_>, promises: &Promises, job: &Job<'_>, ended: u64) -> bool {
    let begun = |event: &Event| matches!(event, Event::Begun { .. });
    let is_touched = |attempt: &Attempt<'_>, since| {
        facts.touched(attempt.worker, since, attempt.released.unwrap_or(ended))
    };
    if job.entries.iter().any(|entry| begun(&entry.event)) {
        let last = job.attempts.last();
        return last.is_some_and(|last| is_touched(last, last.claimed));
    }
    // They may have been given to a session that a fault had ended.
    let since = |attempt: &Attempt<'_>| attempt.claimed.saturating_sub(promises.aftermath);
    let mut attempts = job.attempts.iter();
    attempts.any(|attempt| is_touched(attempt, since(attempt)))
}
