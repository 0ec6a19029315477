//! Whether what happened in a farm was right.
//!
//! Each [`Rule`] is one promise. What the farm may choose (which worker, how soon, in which
//! order clients hear of it) no rule speaks of, and a history that lacks a witness breaks no
//! rule for that alone.

mod blame;
mod ends;
mod fences;
#[cfg(test)]
mod good;
mod logs;
mod shares;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::history::{Entry, Event, History};
use crate::{
    farm::{Fence, JobId},
    job::JobStatus,
};

/// A promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A submission makes one job, however often it is repeated.
    OneJob,
    /// A job that was acknowledged is there from then on.
    Kept,
    /// A job has one end, and whoever is told of one is told of the same.
    OneEnd,
    /// A job that has ended stays as it is.
    EndsStay,
    /// No cancel that was acknowledged is lost.
    Cancels,
    /// Only one fence writes a job's results, and none after its end.
    OneFence,
    /// No task runs twice, and a job that succeeded ran each once.
    TasksOnce,
    /// No task starts before `begun` was committed.
    BegunFirst,
    /// No byte of a log that was acknowledged is missing or altered.
    LogsKept,
    /// A byte of a log that was served never changes.
    LogsStay,
    /// The log of a task that came to its end is whole, and says nothing twice.
    LogsWhole,
    /// No share is starved: see [`Promises::turns`].
    Fair,
    /// A job ends as it should unless it was cancelled, or failed because its own worker
    /// met a fault: see [`Report::excused`].
    Blame,
    /// When faults are over, all work ends by itself, and nothing is left of it.
    Finishes,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::OneJob,
        Self::Kept,
        Self::OneEnd,
        Self::EndsStay,
        Self::Cancels,
        Self::OneFence,
        Self::TasksOnce,
        Self::BegunFirst,
        Self::LogsKept,
        Self::LogsStay,
        Self::LogsWhole,
        Self::Fair,
        Self::Blame,
        Self::Finishes,
    ];

    /// What is promised, in words.
    #[must_use]
    pub fn promise(self) -> &'static str {
        match self {
            Self::OneJob => "a submission makes one job",
            Self::Kept => "an acknowledged job is there",
            Self::OneEnd => "a job has one end",
            Self::EndsStay => "an end stays",
            Self::Cancels => "no cancel is lost",
            Self::OneFence => "one fence writes results",
            Self::TasksOnce => "no task runs twice",
            Self::BegunFirst => "no task starts before begun",
            Self::LogsKept => "no acknowledged log byte is missing or altered",
            Self::LogsStay => "what was served of a log never changes",
            Self::LogsWhole => "the log of a task that ended is whole",
            Self::Fair => "no share is starved",
            Self::Blame => "no job fails but for itself or its worker",
            Self::Finishes => "when faults are over all work ends",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.promise())
    }
}

/// The numbers of what is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promises {
    /// How many slots any other share may be given, of one kind, while a share waits that
    /// has nothing running. [`crate::farm::schedule`] promises 1: the share with the fewest
    /// running jobs comes first, and among equals the one whose turn was longest ago. A
    /// witness who can't order what happened in one transaction has to grant one more.
    pub turns: u32,
    /// How long after the last fault all work has ended, in microseconds.
    pub settle: u64,
    /// In microseconds, a lease, and until somebody notices that it ran out. For so long
    /// after a fault its worker may be given jobs that it will never begin, and for so long
    /// a worker that met none may not have heard of a cancel.
    pub aftermath: u64,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// For which job.
    pub job: Option<JobId>,
    /// When it was seen.
    pub at: u64,
    /// How.
    pub says: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.rule)?;
        if let Some(job) = self.job {
            write!(f, "job {job}: ")?;
        }
        write!(f, "{} (at {} ms)", self.says, self.at / 1000)
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How often each rule was put to the test.
    pub checked: BTreeMap<Rule, u64>,
    /// How many jobs failed that should not have, which a fault of their worker explains.
    pub excused: u64,
    /// How often each was broken.
    pub violations: Vec<Violation>,
}

impl Report {
    /// Notes that a rule was looked at.
    fn look(&mut self, rule: Rule) {
        *self.checked.entry(rule).or_default() += 1;
    }

    fn broken(&mut self, rule: Rule, job: Option<JobId>, at: u64, says: String) {
        self.violations.push(Violation {
            rule,
            job,
            at,
            says,
        });
    }

    /// The rules that were broken.
    #[must_use]
    pub fn broken_rules(&self) -> BTreeSet<Rule> {
        self.violations.iter().map(|broken| broken.rule).collect()
    }
}

/// Judges a history.
#[must_use]
pub fn check(history: &History, promises: &Promises) -> Report {
    let facts = Facts::of(history);
    let mut report = Report::default();
    ends::check(&facts, promises, &mut report);
    fences::check(&facts, &mut report);
    logs::check(&facts, &mut report);
    shares::check(&facts, promises, &mut report);
    blame::check(&facts, promises, &mut report);
    report
}

/// What somebody wanted.
struct Submission<'a> {
    share: &'a str,
    kind: &'a str,
    tasks: &'a [String],
    expected: JobStatus,
}

/// A history by jobs.
struct Facts<'a> {
    entries: &'a [Entry],
    submissions: BTreeMap<&'a str, Submission<'a>>,
    /// Of each key, the jobs that it made.
    made: BTreeMap<&'a str, BTreeSet<JobId>>,
    jobs: BTreeMap<JobId, Job<'a>>,
    faults: BTreeMap<u32, Fault<'a>>,
    /// When the last fault was over, if that is told.
    over: Option<u64>,
}

/// What happened to a job.
struct Job<'a> {
    id: JobId,
    /// What it was made by, if that is known.
    key: Option<&'a str>,
    /// When the farm first said that it has it.
    acknowledged: Option<u64>,
    entries: Vec<&'a Entry>,
    attempts: Vec<Attempt<'a>>,
    /// The first time that somebody was told of its end.
    ended: Option<(u64, JobStatus)>,
    /// How it was when it was seen last.
    last: Option<JobStatus>,
}

/// A fault's time.
struct Fault<'a> {
    touches: &'a [String],
    began: u64,
    ended: u64,
}

/// A job's time with a worker.
struct Attempt<'a> {
    fence: Fence,
    worker: &'a str,
    claimed: u64,
    released: Option<u64>,
}

impl<'a> Facts<'a> {
    fn of(history: &'a History) -> Self {
        let mut facts = Self {
            entries: history.entries(),
            submissions: BTreeMap::new(),
            made: BTreeMap::new(),
            jobs: BTreeMap::new(),
            faults: BTreeMap::new(),
            over: None,
        };
        for entry in history.entries() {
            facts.note(entry);
        }
        facts
    }

    fn note(&mut self, entry: &'a Entry) {
        match &entry.event {
            Event::Submitted {
                key,
                share,
                kind,
                tasks,
                expected,
            } => {
                let submission = Submission {
                    share,
                    kind,
                    tasks,
                    expected: *expected,
                };
                self.submissions.insert(key, submission);
            }
            Event::Acknowledged { key, job, .. } | Event::Listed { key, job } => {
                self.made.entry(key).or_default().insert(*job);
            }
            Event::FaultBegan { fault, touches, .. } => {
                let began = Fault {
                    touches,
                    began: entry.at,
                    ended: u64::MAX,
                };
                self.faults.insert(*fault, began);
            }
            Event::FaultEnded { fault } => {
                if let Some(known) = self.faults.get_mut(fault) {
                    known.ended = entry.at;
                }
            }
            Event::FaultsOver => self.over = Some(entry.at),
            _ => {}
        }
        if let Some(id) = entry.event.job() {
            let job = self.jobs.entry(id).or_insert_with(|| Job::new(id));
            job.note(entry);
        }
    }

    /// Whether a fault touched this worker between these moments, the second one too.
    fn touched(&self, worker: &str, from: u64, to: u64) -> bool {
        self.faults.values().any(|fault| {
            let its = fault.touches.iter().any(|part| part == worker);
            its && fault.began <= to && from <= fault.ended
        })
    }

    /// What a job was made by.
    fn submission(&self, job: &Job<'_>) -> Option<&Submission<'a>> {
        self.submissions.get(job.key?)
    }
}

impl<'a> Job<'a> {
    fn new(id: JobId) -> Self {
        Self {
            id,
            key: None,
            acknowledged: None,
            entries: Vec::new(),
            attempts: Vec::new(),
            ended: None,
            last: None,
        }
    }

    /// The submission that was answered by it.
    fn answered(&self) -> Option<&'a str> {
        self.key.filter(|_| self.acknowledged.is_some())
    }

    fn note(&mut self, entry: &'a Entry) {
        match &entry.event {
            Event::Acknowledged { key, .. } => {
                self.key = Some(key);
                self.acknowledged.get_or_insert(entry.at);
            }
            Event::Listed { key, .. } => self.key = Some(key),
            Event::Claimed { fence, worker, .. } => self.attempts.push(Attempt {
                fence: *fence,
                worker,
                claimed: entry.at,
                released: None,
            }),
            Event::Released { fence, .. } => {
                let ended = |attempt: &&mut Attempt<'_>| attempt.fence == *fence;
                if let Some(attempt) = self.attempts.iter_mut().find(ended) {
                    attempt.released.get_or_insert(entry.at);
                }
            }
            Event::Seen { status, .. } => {
                self.last = *status;
                if let Some(status) = status.filter(|status| status.is_terminal()) {
                    self.ended.get_or_insert((entry.at, status));
                }
            }
            Event::Ended { status, .. } => {
                self.ended.get_or_insert((entry.at, *status));
            }
            _ => {}
        }
        self.entries.push(entry);
    }
}
