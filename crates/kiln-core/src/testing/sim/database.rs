//! The farm's truth: what the store writes, each operation in one moment.
//!
//! What an operation decides is decided by [`crate::farm`], as in the store. Moments are the
//! database's own, microseconds of a clock that may be off.

use std::collections::{BTreeMap, BTreeSet};

use super::{Broken, plan::Planned};
use crate::{
    farm::{
        Fence, JobId, Labels, OfferedImage, Requirements, SessionId, ShareId,
        attempt::{Attempt, Outcome, Refused, Taken},
        lease, limits,
        schedule::{self, Head, Lane, Share, Slots},
    },
    job::{JobStatus, TaskStatus},
    testing::history::{Event, Text},
};

/// A lease, in microseconds.
const LEASE: i64 = limits::LEASE_SECONDS as i64 * 1_000_000;
const SILENT: i64 = limits::SILENT_SECONDS as i64 * 1_000_000;

/// A job's row.
pub(super) struct Job {
    /// What it was made of.
    pub planned: usize,
    share: ShareId,
    wanted: Requirements,
    deadline: u64,
    pub status: JobStatus,
    tries: u32,
    attempts: u32,
    since: i64,
    pub tasks: Vec<(String, TaskStatus)>,
    /// How it was before it changed last, and when that was.
    before: Option<(JobStatus, i64)>,
}

/// An attempt's row.
struct Row {
    job: JobId,
    session: SessionId,
    number: u32,
    granted: i64,
    expires: i64,
    attempt: Attempt,
}

/// A session's row.
struct Session {
    worker: usize,
    labels: Labels,
    slots: u32,
    ready: bool,
    seen: i64,
    voice: u64,
}

/// What a worker reports of a job.
#[derive(Debug, Clone)]
pub(super) enum Deed {
    Begun,
    Task(String, TaskStatus),
    End(JobStatus, Vec<(String, TaskStatus)>),
    Return { counts: bool },
}

/// Where an append finds its log.
pub(super) enum There {
    /// It ends there, and the bytes don't go on from it.
    Elsewhere(u64),
    /// So many of the bytes are there.
    Behind(usize),
}

/// Why an append is not taken.
pub(super) enum NoLog {
    Lost,
    /// Nothing is written of a task that has not been told to run.
    NotBegun,
}

#[derive(Default)]
pub(super) struct Database {
    broken: Option<Broken>,
    pub jobs: BTreeMap<JobId, Job>,
    rows: BTreeMap<Fence, Row>,
    /// The attempts that have not ended.
    open: BTreeSet<Fence>,
    sessions: BTreeMap<SessionId, Session>,
    keys: BTreeMap<String, JobId>,
    pub logs: BTreeMap<(JobId, String), Vec<u8>>,
    turns: BTreeMap<ShareId, i64>,
    /// When leases were last moved for a clock that was put forward.
    moved: i64,
    /// How many jobs of a share may run at once.
    cap: Option<u32>,
    /// The jobs of whose end was told.
    pub outbox: Vec<JobId>,
    /// What the database is a witness of.
    pub saw: Vec<Event>,
    lines: u64,
}

impl Database {
    pub fn new(cap: Option<u32>, broken: Option<Broken>) -> Self {
        Self {
            broken,
            cap,
            ..Self::default()
        }
    }

    fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    /// The job of a submission: one, however often it comes.
    pub fn submit(&mut self, planned: &Planned, now: i64) -> JobId {
        if let Some(known) = self.keys.get(&planned.key)
            && !self.is(Broken::KeysForgotten)
        {
            return *known;
        }
        let id = JobId(i32::try_from(self.jobs.len()).unwrap_or(i32::MAX) + 1);
        let tasks = planned.tasks.iter();
        let job = Job {
            planned: planned.place,
            share: ShareId(i64::from(planned.owner)),
            wanted: planned.wanted.clone(),
            deadline: planned.deadline,
            status: JobStatus::Queued,
            tries: 0,
            attempts: 0,
            since: now,
            tasks: tasks
                .map(|task| (task.name.to_owned(), TaskStatus::Pending))
                .collect(),
            before: None,
        };
        self.jobs.insert(id, job);
        self.keys.insert(planned.key.clone(), id);
        id
    }

    /// Each job, with what it was made of.
    pub fn listed(&self) -> impl Iterator<Item = (JobId, usize)> {
        self.jobs.iter().map(|(id, job)| (*id, job.planned))
    }

    /// How a job is.
    pub fn see(&self, job: JobId, now: i64) -> Option<JobStatus> {
        let job = self.jobs.get(&job)?;
        let stale = self.is(Broken::AnswersStale);
        let before = job.before.filter(|(_, at)| stale && now < at + 5_000_000);
        Some(before.map_or(job.status, |(status, _)| status))
    }

    fn move_to(&mut self, id: JobId, to: JobStatus, now: i64) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if job.status.transition(to).is_err() && self.broken.is_none() {
            let what = format!("a job that went from {} to {to}", job.status);
            self.saw.push(Event::Left { what });
        }
        job.before = Some((job.status, now));
        job.status = to;
        if to.is_terminal() {
            for (_, status) in &mut job.tasks {
                *status = status.at_end(None);
            }
            self.outbox.push(id);
        }
    }

    fn release(&mut self, fence: Fence, outcome: Outcome) {
        if let Some(row) = self.rows.get_mut(&fence) {
            row.attempt.outcome = Some(outcome);
            self.open.remove(&fence);
            let job = row.job;
            self.saw.push(Event::Released { job, fence });
        }
    }

    /// Cancels a job; false when it has ended.
    pub fn cancel(&mut self, id: JobId, now: i64) -> bool {
        let Some(job) = self.jobs.get(&id) else {
            return false;
        };
        if job.status.transition(JobStatus::Cancelled).is_err() {
            return false;
        }
        if job.status == JobStatus::Running && self.is(Broken::CancelsForgotten) {
            return true;
        }
        let held = |fence: &&Fence| self.rows[*fence].job == id;
        if let Some(fence) = self.open.iter().find(held).copied() {
            self.release(fence, Outcome::Cancelled);
        }
        self.move_to(id, JobStatus::Cancelled, now);
        true
    }

    /// A session says hello: which of its leases are not its own, and its voice from now on.
    pub fn hello(
        &mut self,
        session: &SessionId,
        (worker, slots): (usize, u32),
        leases: &[Fence],
        now: i64,
    ) -> (Vec<Fence>, u64) {
        let known = self.sessions.entry(session.clone());
        let known = known.or_insert_with(|| Session {
            worker,
            labels: labels(worker),
            slots,
            ready: true,
            seen: now,
            voice: 0,
        });
        known.voice += 1;
        let voice = known.voice;
        (self.renew(session, leases, now), voice)
    }

    /// Renews leases; gives those that are not this session's, or have ended.
    pub fn renew(&mut self, session: &SessionId, leases: &[Fence], now: i64) -> Vec<Fence> {
        if let Some(known) = self.sessions.get_mut(session) {
            known.seen = now;
        }
        let mut lost = Vec::new();
        for fence in leases {
            match self.rows.get_mut(fence) {
                Some(row) if row.session == *session && row.is_alive() => {
                    row.expires = row.expires.max(now + LEASE);
                }
                _ => lost.push(*fence),
            }
        }
        lost
    }

    /// A session takes jobs, or takes none any more.
    pub fn set_ready(&mut self, session: &SessionId, ready: bool, now: i64) {
        if let Some(known) = self.sessions.get_mut(session) {
            known.ready = ready;
            known.seen = now;
        }
    }

    /// The leases of a session that have not ended.
    pub fn leases(&self, session: &SessionId) -> BTreeSet<Fence> {
        let own = |fence: &&Fence| self.rows[*fence].session == *session;
        self.open.iter().filter(own).copied().collect()
    }

    /// Makes what an offer needs: the job and what it was made of. False when another voice
    /// speaks for the session.
    pub fn offer(&self, fence: Fence, voice: u64) -> Result<Option<(JobId, usize)>, Refused> {
        let row = self.rows.get(&fence).ok_or(Refused::Lost)?;
        row.attempt.alive()?;
        let speaks = self.sessions.get(&row.session);
        if speaks.is_none_or(|session| session.voice != voice) {
            return Ok(None);
        }
        let job = self.jobs.get(&row.job).ok_or(Refused::Lost)?;
        Ok(Some((row.job, job.planned)))
    }

    /// A pass: gives free slots to jobs that wait.
    pub fn assign(&mut self, now: i64) {
        let waits = |job: &Job| job.status == JobStatus::Queued;
        if !self.jobs.values().any(waits) {
            return;
        }
        let slots = self.free(now);
        let (shares, lanes) = self.waiting();
        for given in schedule::assign(&slots, &shares, &lanes) {
            let fence = Fence(i64::try_from(self.rows.len()).unwrap_or(i64::MAX) + 1);
            let Some(job) = self.jobs.get_mut(&given.job) else {
                continue;
            };
            job.tries += 1;
            job.attempts += 1;
            let number = job.attempts;
            self.turns.insert(job.share, fence.0);
            self.move_to(given.job, JobStatus::Running, now);
            let worker = self.sessions[&given.session].worker;
            let worker = format!("worker-{worker}");
            self.say(given.job, "", &format!("attempt {number} at {worker}"));
            self.saw.push(Event::Claimed {
                job: given.job,
                fence,
                attempt: number,
                worker,
            });
            let row = Row {
                job: given.job,
                session: given.session,
                number,
                granted: now,
                expires: now + LEASE,
                attempt: Attempt::default(),
            };
            self.rows.insert(fence, row);
            self.open.insert(fence);
        }
    }

    fn free(&self, now: i64) -> Vec<Slots> {
        let here = |(_, session): &(&SessionId, &Session)| {
            session.ready && session.seen > now - SILENT && session.seen <= now
        };
        let slots = self.sessions.iter().filter(here).map(|(id, session)| {
            let held = u32::try_from(self.leases(id).len()).unwrap_or(u32::MAX);
            Slots {
                session: id.clone(),
                free: session.slots.saturating_sub(held),
                labels: session.labels.clone(),
            }
        });
        slots.collect()
    }

    fn waiting(&self) -> (Vec<Share>, Vec<Lane>) {
        let mut shares: BTreeMap<ShareId, Share> = BTreeMap::new();
        let mut lanes: BTreeMap<(String, ShareId), Lane> = BTreeMap::new();
        for (id, job) in &self.jobs {
            // One share of all is what an unfair farm has.
            let unfair = self.is(Broken::SharesForgotten);
            let whose = if unfair { ShareId(0) } else { job.share };
            let share = shares.entry(whose).or_insert_with(|| Share {
                id: whose,
                running: 0,
                cap: self.cap.filter(|_| !unfair),
                turn: self.turns.get(&whose).copied().unwrap_or_default(),
            });
            share.running += u32::from(job.status == JobStatus::Running);
            if job.status == JobStatus::Queued {
                let class = (job.wanted.to_string(), whose);
                let lane = lanes.entry(class).or_insert_with(|| Lane {
                    share: whose,
                    requirements: job.wanted.clone(),
                    heads: Vec::new(),
                });
                lane.heads.push(Head {
                    job: *id,
                    priority: 0,
                    since: job.since,
                });
            }
        }
        (
            shares.into_values().collect(),
            lanes.into_values().collect(),
        )
    }

    /// The clock was put forward: no job loses that time. Of two servers that say so one does
    /// it.
    pub fn put_forward(&mut self, before: i64, by: i64, now: i64) {
        if self.moved > before && self.moved <= now {
            return;
        }
        self.moved = now;
        for fence in &self.open {
            if let Some(row) = self.rows.get_mut(fence)
                && row.granted <= before
            {
                row.granted += by;
            }
        }
    }

    /// Ends what is over.
    pub fn reap(&mut self, heard: i64, now: i64) {
        // A clock that is behind for a moment makes no lease shorter.
        let known = heard.max(now);
        for fence in &self.open {
            if let Some(row) = self.rows.get_mut(fence) {
                row.expires = row.expires.min(known + LEASE);
            }
        }
        for session in self.sessions.values_mut() {
            if session.seen > known {
                session.seen = known - LEASE;
            }
        }
        let mut over = Vec::new();
        for fence in &self.open {
            let row = &self.rows[fence];
            let job = &self.jobs[&row.job];
            let running = lease::Running {
                granted: row.granted,
                expires: row.expires,
                deadline_seconds: job.deadline,
                begun: row.attempt.begun && !self.is(Broken::BegunForgotten),
                tries: job.tries,
            };
            let next = lease::over(&running, heard, now);
            over.extend(next.map(|next| (*fence, row.job, next.status)));
        }
        for (fence, job, status) in over {
            self.release(fence, Outcome::Reaped);
            self.move_to(job, status, now);
        }
    }
}

impl Row {
    fn is_alive(&self) -> bool {
        self.attempt.alive().is_ok()
    }
}

/// What a worker offers: every other one has what some jobs ask for.
fn labels(worker: usize) -> Labels {
    let image = OfferedImage {
        name: "dummy".to_owned(),
        arch: "x86_64".to_owned(),
        digest: "d".to_owned(),
        default: true,
    };
    let more = worker.is_multiple_of(2);
    let more = more.then(|| ("gpu".to_owned(), "yes".to_owned()));
    Labels {
        images: vec![image],
        labels: more.into_iter().collect(),
    }
}

/// Reports, and logs.
impl Database {
    /// Takes what a worker reports under a lease.
    pub fn report(
        &mut self,
        session: &SessionId,
        fence: Fence,
        deed: &Deed,
        now: i64,
    ) -> Result<(), Refused> {
        let believes = self.is(Broken::FencesForgotten);
        let row = self.rows.get_mut(&fence).ok_or(Refused::Lost)?;
        if row.session != *session {
            return Err(Refused::Lost);
        }
        if believes {
            row.attempt.outcome = None;
            self.open.insert(fence);
        }
        let id = row.job;
        let job = self.jobs.get_mut(&id).ok_or(Refused::Lost)?;
        match deed {
            Deed::Begun => row.attempt.begin().map(drop),
            Deed::Task(name, to) => {
                let task = job.tasks.iter_mut().find(|(known, _)| known == name);
                let Some((_, status)) = task else {
                    return Err(Refused::NotBegun);
                };
                let taken = row.attempt.task(*status, *to)?;
                *status = *to;
                if *to == TaskStatus::Running && taken == Taken::New {
                    self.say(id, name, "it runs");
                }
                Ok(())
            }
            Deed::End(said, tasks) => {
                let present = if believes {
                    JobStatus::Running
                } else {
                    job.status
                };
                if row.attempt.end(present, *said)? == Taken::New {
                    for (name, status) in &mut job.tasks {
                        let said = tasks.iter().find(|(known, _)| known == name);
                        *status = status.at_end(said.map(|(_, status)| *status));
                    }
                    self.release(fence, Outcome::Ended);
                    self.move_to(id, *said, now);
                }
                Ok(())
            }
            Deed::Return { counts } => {
                if row.attempt.give_back()? == Taken::New {
                    job.tries -= u32::from(!counts);
                    let next = lease::given_back(job.tries, *counts, "it does not start");
                    self.release(fence, Outcome::Returned);
                    self.move_to(id, next.status, now);
                }
                Ok(())
            }
        }
    }

    /// Looks where bytes go that a worker sends of a log.
    pub fn place(
        &self,
        (session, fence): (&SessionId, Fence),
        task: &str,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(There, u64), NoLog> {
        let job = self.holds(session, fence)?;
        let log = self.logs.get(&(job, task.to_owned()));
        let log = log.ok_or(NoLog::NotBegun)?;
        let stored = log.len() as u64;
        if self.is(Broken::OffsetsForgotten) {
            return Ok((There::Behind(0), stored));
        }
        let Some(there) = stored.checked_sub(offset) else {
            return Ok((There::Elsewhere(stored), stored));
        };
        let there = usize::try_from(there)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        if log[from..from + there] != bytes[..there] {
            return Ok((There::Elsewhere(stored), stored));
        }
        Ok((There::Behind(there), stored))
    }

    /// Adds bytes behind those that were there; where the log ends if it has grown since.
    pub fn add(
        &mut self,
        (session, fence): (&SessionId, Fence),
        task: &str,
        stored: u64,
        bytes: &[u8],
    ) -> Result<Result<u64, u64>, NoLog> {
        let job = self.holds(session, fence)?;
        let log = self.logs.entry((job, task.to_owned())).or_default();
        let end = log.len() as u64;
        if end != stored {
            return Ok(Err(end));
        }
        log.extend_from_slice(bytes);
        Ok(Ok(log.len() as u64))
    }

    /// The job of a lease that has not ended.
    pub fn holds(&self, session: &SessionId, fence: Fence) -> Result<JobId, NoLog> {
        let row = self.rows.get(&fence).filter(|row| row.session == *session);
        let row = row.ok_or(NoLog::Lost)?;
        if !row.is_alive() && !self.is(Broken::FencesForgotten) {
            return Err(NoLog::Lost);
        }
        Ok(row.job)
    }

    /// The job of a lease, and which attempt it is.
    pub fn attempt(&self, fence: Fence) -> Option<(JobId, u32)> {
        let row = self.rows.get(&fence)?;
        Some((row.job, row.number))
    }

    /// A line of the farm's own.
    fn say(&mut self, job: JobId, task: &str, what: &str) {
        self.lines += 1;
        let line = format!("[kiln] {what} ({})\n", self.lines);
        let log = self.logs.entry((job, task.to_owned())).or_default();
        log.extend_from_slice(line.as_bytes());
    }

    /// A log from this byte on.
    pub fn read(&self, job: JobId, task: &str, offset: u64) -> Option<Text> {
        let log = self.logs.get(&(job, task.to_owned()))?;
        let from = usize::try_from(offset).ok()?;
        Some(Text(log.get(from..)?.to_vec()))
    }
}
