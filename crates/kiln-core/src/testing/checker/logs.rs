//! Bytes of logs: produced, acknowledged, served.

use std::collections::{BTreeMap, BTreeSet};

use super::{Event, Facts, Job, Report, Rule};
use crate::farm::Fence;

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    for job in facts.jobs.values() {
        let whole = read_last(job);
        for (task, text) in &whole {
            pieces(job, task, text, report);
        }
        for (task, made) in made(job) {
            if let Some(text) = whole.get(task) {
                is_whole(job, task, &made, text, report);
            }
        }
        unread(job, &whole, report);
    }
}

/// The logs as they were when all was over.
fn read_last<'a>(job: &Job<'a>) -> BTreeMap<&'a str, &'a [u8]> {
    let mut whole = BTreeMap::new();
    for entry in &job.entries {
        if let Event::ReadWhole { task, bytes, .. } = &entry.event {
            whole.insert(task.as_str(), bytes.0.as_slice());
        }
    }
    whole
}

/// What was acknowledged or served of a log is what is there now.
fn pieces(job: &Job<'_>, name: &str, text: &[u8], report: &mut Report) {
    for entry in &job.entries {
        let (rule, offset, bytes) = match &entry.event {
            Event::Stored {
                task,
                offset,
                bytes,
                ..
            } if task == name => (Rule::LogsKept, *offset, bytes),
            Event::Read {
                task,
                offset,
                bytes,
                ..
            } if task == name => (Rule::LogsStay, *offset, bytes),
            Event::ReadWhole { task, bytes, .. } if task == name => (Rule::LogsStay, 0, bytes),
            _ => continue,
        };
        report.look(rule);
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(text.len());
        let there = &text[from..];
        let same = std::iter::zip(there, &bytes.0).take_while(|(a, b)| a == b);
        let same = same.count();
        if same < bytes.0.len() {
            let at = offset + same as u64;
            let what = if same < there.len() {
                "is another"
            } else {
                "is missing"
            };
            let says = format!("{}: byte {at} {what}", log(name));
            return report.broken(rule, Some(job.id), entry.at, says);
        }
    }
}

/// A log of which something was acknowledged can be read.
fn unread(job: &Job<'_>, whole: &BTreeMap<&str, &[u8]>, report: &mut Report) {
    // A history without last readings has no witness for this.
    if whole.is_empty() {
        return;
    }
    let mut known: BTreeSet<&str> = whole.keys().copied().collect();
    for entry in &job.entries {
        if let Event::Stored { task, bytes, .. } = &entry.event
            && !bytes.0.is_empty()
            && known.insert(task)
        {
            let says = format!("{} is not there", log(task));
            report.broken(Rule::LogsKept, Some(job.id), entry.at, says);
        }
    }
}

/// What a task wrote.
struct Made {
    fence: Fence,
    bytes: Vec<u8>,
    /// When it came to its end by itself.
    ended: bool,
}

fn made<'a>(job: &Job<'a>) -> BTreeMap<&'a str, Made> {
    let mut all: BTreeMap<&str, Made> = BTreeMap::new();
    for entry in &job.entries {
        match &entry.event {
            Event::Produced {
                fence, task, bytes, ..
            } => {
                let made = all.entry(task).or_insert_with(|| Made {
                    fence: *fence,
                    bytes: Vec::new(),
                    ended: false,
                });
                if made.fence == *fence {
                    made.bytes.extend_from_slice(&bytes.0);
                }
            }
            Event::TaskEnded { fence, task, .. } => {
                if let Some(made) = all.get_mut(task.as_str()) {
                    made.ended |= made.fence == *fence;
                }
            }
            _ => {}
        }
    }
    all
}

/// If the job's end was taken from the worker that ran the task, all of it is there, in
/// one piece; and no line is there twice.
fn is_whole(job: &Job<'_>, task: &str, made: &Made, text: &[u8], report: &mut Report) {
    report.look(Rule::LogsWhole);
    let at = job.ended.map_or(0, |(at, _)| at);
    let taken = job
        .entries
        .iter()
        .any(|entry| matches!(&entry.event, Event::Ended { fence, .. } if *fence == made.fence));
    if made.ended && taken && !contains(text, &made.bytes) {
        let says = format!("{}: not all that the task wrote is there", log(task));
        report.broken(Rule::LogsWhole, Some(job.id), at, says);
    }
    let written: BTreeSet<&[u8]> = lines(&made.bytes).collect();
    let mut seen = BTreeSet::new();
    for line in lines(text).filter(|line| written.contains(line)) {
        if !seen.insert(line) {
            let line = String::from_utf8_lossy(line);
            let says = format!("{}: twice: {}", log(task), line.trim_end());
            return report.broken(Rule::LogsWhole, Some(job.id), at, says);
        }
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n')
}

/// Whether one is in the other, beginning with a line of its own.
fn contains(text: &[u8], part: &[u8]) -> bool {
    let mut at = 0;
    for line in lines(text) {
        if text[at..].starts_with(part) {
            return true;
        }
        at += line.len();
    }
    part.is_empty()
}

fn log(task: &str) -> String {
    if task.is_empty() {
        "the job's log".to_owned()
    } else {
        format!("the log of {task}")
    }
}
