//! Whether a share that waits gets its turn.
//!
//! A share is *hungry* while a job of it waits and none runs. What the schedule promises it
//! then is a turn before anybody else's second one.

use std::collections::BTreeMap;

use super::{Facts, Job, Promises, Report, Rule, Submission};
use crate::{
    farm::{Fence, JobId},
    job::JobStatus,
};

/// Where there is none.
const NONE: Fence = Fence(0);

/// What changes for a share, in the order in which things of one moment are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Claimed,
    Released,
    /// It waits no longer, and was not given to anybody.
    Gone,
    Waits,
}

/// Something that happened to a job of a share. What was given in one moment was given in the
/// order of the fences.
type Step<'a> = (u64, Change, Fence, &'a str, JobId);

/// A share, as far as a kind of jobs goes.
#[derive(Default)]
struct Share<'a> {
    waiting: u32,
    running: u32,
    /// While it is hungry: how many slots others were given.
    passed: Option<BTreeMap<&'a str, u32>>,
}

pub(super) fn check(facts: &Facts<'_>, promises: &Promises, report: &mut Report) {
    let mut kinds: BTreeMap<&str, Vec<Step<'_>>> = BTreeMap::new();
    for job in facts.jobs.values() {
        if let Some(submission) = facts.submission(job) {
            let steps = kinds.entry(submission.kind).or_default();
            walk(job, submission, steps);
        }
    }
    for steps in kinds.values_mut() {
        steps.sort_unstable();
        sweep(steps, promises, report);
    }
}

/// When a job waits, for whoever looks from outside: no earlier than the farm said that it
/// has it, no longer than until somebody wanted it cancelled.
fn walk<'a>(job: &Job<'a>, submission: &Submission<'a>, steps: &mut Vec<Step<'a>>) {
    let mut step = |at, change, fence| {
        steps.push((at, change, fence, submission.share, job.id));
    };
    let cancelled = job.entries.iter().find_map(|entry| match entry.event {
        super::Event::CancelAsked { .. } => Some(entry.at),
        _ => None,
    });
    let over = job.ended.map(|(at, _)| at);
    let until = [cancelled, over].into_iter().flatten().min();
    let mut since = job.acknowledged;
    for attempt in &job.attempts {
        if let Some(from) = since.filter(|from| *from < attempt.claimed) {
            let to = until.unwrap_or(u64::MAX).min(attempt.claimed);
            if from < to {
                step(from, Change::Waits, NONE);
                step(to, Change::Gone, NONE);
            }
        }
        step(attempt.claimed, Change::Claimed, attempt.fence);
        since = None;
        if let Some(released) = attempt.released {
            step(released, Change::Released, attempt.fence);
            since = Some(released);
        }
    }
    // What never came to a worker; after an attempt only where it had to wait again.
    let again = job.attempts.is_empty() || job.last == Some(JobStatus::Queued);
    if let Some(from) = since.filter(|_| again) {
        let to = until.unwrap_or(u64::MAX);
        if from < to {
            step(from, Change::Waits, NONE);
            step(to, Change::Gone, NONE);
        }
    }
}

fn sweep<'a>(steps: &[Step<'a>], promises: &Promises, report: &mut Report) {
    let mut shares: BTreeMap<&'a str, Share<'a>> = BTreeMap::new();
    for (at, change, _, name, job) in steps {
        if *change == Change::Claimed {
            report.look(Rule::Fair);
            pass(&mut shares, name, *job, *at, promises, report);
        }
        let share = shares.entry(name).or_default();
        match change {
            Change::Claimed => share.running += 1,
            Change::Released => share.running = share.running.saturating_sub(1),
            Change::Gone => share.waiting = share.waiting.saturating_sub(1),
            Change::Waits => share.waiting += 1,
        }
        if share.waiting == 0 || share.running > 0 {
            share.passed = None;
        } else if share.passed.is_none() {
            share.passed = Some(BTreeMap::new());
        }
    }
}

/// All who are hungry see that another one is given a slot.
fn pass<'a>(
    shares: &mut BTreeMap<&'a str, Share<'a>>,
    given: &'a str,
    job: JobId,
    at: u64,
    promises: &Promises,
    report: &mut Report,
) {
    for (name, share) in shares.iter_mut().filter(|(name, _)| **name != given) {
        let Some(passed) = &mut share.passed else {
            continue;
        };
        let turns = passed.entry(given).or_default();
        *turns += 1;
        if *turns == promises.turns + 1 {
            let says = format!(
                "share {given} was given {turns} slots while share {name} waited with nothing running"
            );
            report.broken(Rule::Fair, Some(job), at, says);
        }
    }
}
