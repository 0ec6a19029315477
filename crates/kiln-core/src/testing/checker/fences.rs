//! What was done under which fence.

use std::collections::{BTreeMap, BTreeSet};

use super::{Entry, Event, Facts, Job, Report, Rule};
use crate::{farm::Fence, job::JobStatus};

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    for job in facts.jobs.values() {
        one_fence(job, report);
        nothing_after_the_end(job, report);
        begun_first(job, report);
        tasks_once(facts, job, report);
    }
}

/// The lease under which something was reported and taken, and when that was asked.
fn written(entry: &Entry) -> Option<(Fence, u64)> {
    match &entry.event {
        Event::Begun { fence, asked, .. }
        | Event::Stored { fence, asked, .. }
        | Event::Ended { fence, asked, .. } => Some((*fence, *asked)),
        _ => None,
    }
}

/// Whether only one lease of a job may have this: of the job's own log each attempt
/// writes a part.
fn is_result(event: &Event) -> bool {
    match event {
        Event::Begun { .. } | Event::Ended { .. } => true,
        Event::Stored { task, .. } => !task.is_empty(),
        _ => false,
    }
}

fn one_fence(job: &Job<'_>, report: &mut Report) {
    let results = job.entries.iter().filter(|entry| is_result(&entry.event));
    let mut first = None;
    for entry in results {
        let Some((fence, _)) = written(entry) else {
            continue;
        };
        report.look(Rule::OneFence);
        let first = *first.get_or_insert(fence);
        if fence != first {
            let says = format!("results were taken under the fences {first} and {fence}");
            return report.broken(Rule::OneFence, Some(job.id), entry.at, says);
        }
    }
}

/// What was asked after somebody had been told of the end was refused; so was what another
/// fence asked after one had begun. The worker that was not told that it ended the job may
/// say so again.
fn nothing_after_the_end(job: &Job<'_>, report: &mut Report) {
    let mut began: Option<(u64, Fence)> = None;
    for entry in &job.entries {
        let Some((fence, asked)) = written(entry) else {
            continue;
        };
        report.look(Rule::OneFence);
        let again = matches!(entry.event, Event::Ended { .. });
        if let Some((ended, _)) = job.ended.filter(|(ended, _)| asked > *ended && !again) {
            let after = (asked - ended) / 1000;
            let says = format!("fence {fence} wrote {after} ms after the job's end");
            return report.broken(Rule::OneFence, Some(job.id), entry.at, says);
        }
        if let Some((since, other)) =
            began.filter(|(since, other)| asked > *since && *other > fence)
        {
            let after = (asked - since) / 1000;
            let says = format!("fence {fence} wrote {after} ms after fence {other} had begun");
            return report.broken(Rule::OneFence, Some(job.id), entry.at, says);
        }
        if matches!(entry.event, Event::Begun { .. }) {
            began.get_or_insert((entry.at, fence));
        }
    }
}

fn begun_first(job: &Job<'_>, report: &mut Report) {
    let mut begun = BTreeSet::new();
    for entry in &job.entries {
        match &entry.event {
            Event::Begun { fence, .. } => {
                begun.insert(*fence);
            }
            Event::TaskStarted { fence, task, .. } => {
                report.look(Rule::BegunFirst);
                if !begun.contains(fence) {
                    let says = format!("task {task} started under fence {fence} before `begun`");
                    return report.broken(Rule::BegunFirst, Some(job.id), entry.at, says);
                }
            }
            _ => {}
        }
    }
}

fn tasks_once(facts: &Facts<'_>, job: &Job<'_>, report: &mut Report) {
    let mut started: BTreeMap<&str, Fence> = BTreeMap::new();
    let mut ended = BTreeSet::new();
    for entry in &job.entries {
        match &entry.event {
            Event::TaskStarted { fence, task, .. } => {
                report.look(Rule::TasksOnce);
                if let Some(before) = started.insert(task, *fence) {
                    let says =
                        format!("task {task} ran under fence {before} and under fence {fence}");
                    report.broken(Rule::TasksOnce, Some(job.id), entry.at, says);
                }
            }
            Event::TaskEnded { task, .. } => {
                ended.insert(task.as_str());
            }
            _ => {}
        }
    }
    let (Some((at, JobStatus::Success)), Some(submission)) = (job.ended, facts.submission(job))
    else {
        return;
    };
    for task in submission.tasks {
        if !ended.contains(task.as_str()) {
            let says = format!("it succeeded, and task {task} never came to its end");
            report.broken(Rule::TasksOnce, Some(job.id), at, says);
        }
    }
}
