//! Jobs from their acknowledgement to their one end.

use std::collections::BTreeSet;

use super::{Attempt, Event, Facts, Job, Promises, Report, Rule};
use crate::job::JobStatus;

pub(super) fn check(facts: &Facts<'_>, promises: &Promises, report: &mut Report) {
    for (key, jobs) in &facts.made {
        report.look(Rule::OneJob);
        if jobs.len() > 1 {
            let says = format!("submission {key} made the jobs {jobs:?}");
            report.broken(Rule::OneJob, None, 0, says);
        }
    }
    unanswered(facts, report);
    for job in facts.jobs.values() {
        kept(job, report);
        one_end(job, report);
        stays(job, report);
        cancels(job, report);
        works_on(facts, promises, job, report);
        if job.acknowledged.is_some() {
            finishes(facts, promises, job, report);
        }
    }
    for entry in facts.entries {
        if let Event::Left { what } = &entry.event {
            report.broken(Rule::Finishes, None, entry.at, format!("{what} is left"));
        }
    }
}

/// Who submits does so until there is an answer; when all is over there has been one.
fn unanswered(facts: &Facts<'_>, report: &mut Report) {
    let Some(over) = facts.over else {
        return;
    };
    let acknowledged: BTreeSet<&str> = facts.jobs.values().filter_map(Job::answered).collect();
    for key in facts.submissions.keys() {
        report.look(Rule::Finishes);
        if !acknowledged.contains(key) {
            let says = format!("submission {key} was never acknowledged");
            report.broken(Rule::Finishes, None, over, says);
        }
    }
}

/// It is there from its acknowledgement on.
fn kept(job: &Job<'_>, report: &mut Report) {
    let Some(acknowledged) = job.acknowledged else {
        return;
    };
    report.look(Rule::Kept);
    let missed = job.entries.iter().find(|entry| {
        matches!(entry.event, Event::Seen { status: None, asked, .. } if asked >= acknowledged)
    });
    if let Some(missed) = missed {
        let says = "the farm knows of no such job".to_owned();
        report.broken(Rule::Kept, Some(job.id), missed.at, says);
    }
}

/// Everybody who is told of its end is told of the same.
fn one_end(job: &Job<'_>, report: &mut Report) {
    let Some((_, first)) = job.ended else {
        return;
    };
    report.look(Rule::OneEnd);
    for entry in &job.entries {
        let told = match entry.event {
            Event::Seen { status, .. } => status.filter(|status| status.is_terminal()),
            Event::Ended { status, .. } => Some(status),
            _ => None,
        };
        if let Some(other) = told.filter(|told| *told != first) {
            let says = format!("it ended as {first} and as {other}");
            return report.broken(Rule::OneEnd, Some(job.id), entry.at, says);
        }
    }
}

/// Whoever asks after the first answer that it has ended is told that too.
fn stays(job: &Job<'_>, report: &mut Report) {
    let Some((ended, as_what)) = job.ended else {
        return;
    };
    for entry in &job.entries {
        let Event::Seen { status, asked, .. } = entry.event else {
            continue;
        };
        if asked < ended {
            continue;
        }
        report.look(Rule::EndsStay);
        if !status.is_some_and(JobStatus::is_terminal) {
            let now = status.map_or("gone", JobStatus::as_str);
            let says = format!("it had ended as {as_what} and is {now}");
            return report.broken(Rule::EndsStay, Some(job.id), entry.at, says);
        }
    }
}

/// A job that was cancelled ends so.
fn cancels(job: &Job<'_>, report: &mut Report) {
    let cancelled = |event: &Event| matches!(event, Event::Cancelled { .. });
    let Some(cancel) = job.entries.iter().find(|entry| cancelled(&entry.event)) else {
        return;
    };
    report.look(Rule::Cancels);
    let Some(last) = job.last else {
        return;
    };
    if last != JobStatus::Cancelled {
        let says = format!("it was cancelled and is {last}");
        report.broken(Rule::Cancels, Some(job.id), cancel.at, says);
    }
}

/// Work on a job that was cancelled stops, once its worker can know of it.
fn works_on(facts: &Facts<'_>, promises: &Promises, job: &Job<'_>, report: &mut Report) {
    let cancelled = job.entries.iter().find_map(|entry| match entry.event {
        Event::Cancelled { .. } => Some(entry.at),
        _ => None,
    });
    let Some(cancelled) = cancelled else {
        return;
    };
    for entry in &job.entries {
        let Event::TaskStarted { fence, task, .. } = &entry.event else {
            continue;
        };
        let its = |attempt: &&Attempt<'_>| attempt.fence == *fence;
        let worker = job.attempts.iter().find(its);
        let touched =
            worker.is_some_and(|attempt| facts.touched(attempt.worker, cancelled, entry.at));
        let after = entry.at.saturating_sub(cancelled);
        if after > promises.aftermath && !touched {
            let says = format!("task {task} started {} ms after the cancel", after / 1000);
            report.broken(Rule::Cancels, Some(job.id), entry.at, says);
        }
    }
}

/// It has ended, soon enough after the last fault, or after its submission if that was later.
fn finishes(facts: &Facts<'_>, promises: &Promises, job: &Job<'_>, report: &mut Report) {
    report.look(Rule::Finishes);
    let Some((ended, _)) = job.ended else {
        let now = job.last.map_or("not seen any more", JobStatus::as_str);
        let says = format!("it was acknowledged, and at the end it is {now}");
        let at = facts.entries.last().map_or(0, |entry| entry.at);
        return report.broken(Rule::Finishes, Some(job.id), at, says);
    };
    let since = facts.over.max(job.acknowledged);
    let after = facts
        .over
        .and(since)
        .map(|since| ended.saturating_sub(since));
    if let Some(after) = after.filter(|after| *after > promises.settle) {
        let says = format!(
            "it ended {} ms after the last fault and its submission",
            after / 1000
        );
        report.broken(Rule::Finishes, Some(job.id), ended, says);
    }
}
