//! What is ours beside builds.sr.ht's: attempts, the queue, workers.

use async_graphql::{Object, SimpleObject};
use kiln_store::model::{self, Mood, Waiting};

use super::{job::Job, scalars::Time};
use crate::app::{self, workers::Registered};

/// One try at a job (kiln)
#[derive(Debug, SimpleObject)]
pub(in super::super) struct Attempt {
    /// Its number in the job, from 1
    number: i32,
    /// The worker's name
    worker: String,
    /// When the worker was given the job
    started: Time,
    /// When its first task could start, or null if none did
    begun: Option<Time>,
    /// When it ended
    ended: Option<Time>,
    /// Why it ended
    reason: Option<String>,
}

impl From<model::Attempt> for Attempt {
    fn from(attempt: model::Attempt) -> Self {
        Self {
            number: small(attempt.number),
            worker: attempt.worker,
            started: Time(attempt.started),
            begun: attempt.begun.map(Time),
            ended: attempt.ended.map(Time),
            reason: attempt.reason,
        }
    }
}

/// A source of the manifest as it was cloned (kiln)
#[derive(Debug, SimpleObject)]
pub(in super::super) struct JobSource {
    /// Its place in the manifest, from 0
    index: i32,
    /// The commit that was checked out
    commit: String,
}

impl From<model::Source> for JobSource {
    fn from(source: model::Source) -> Self {
        Self {
            index: small(source.index),
            commit: source.commit,
        }
    }
}

/// A job that waits for a worker (kiln)
#[derive(Debug, SimpleObject)]
pub(in super::super) struct QueuedJob {
    job: Job,
    /// The canonical name of the job's owner
    owner: String,
    /// Why it waits
    reason: String,
}

impl From<Waiting> for QueuedJob {
    fn from(waiting: Waiting) -> Self {
        Self {
            owner: format!("~{}", waiting.owner_name),
            reason: app::waiting::sentence(&waiting.reason),
            job: waiting.job.into(),
        }
    }
}

/// An image that a worker has (kiln)
#[derive(Debug, SimpleObject)]
pub(in super::super) struct WorkerImage {
    name: String,
    arch: String,
    /// Which version of the image: a digest in hexadecimal
    digest: String,
}

/// A worker: one process of a registration, or a registration without one (kiln)
#[derive(Debug)]
pub(in super::super) struct Worker {
    registration: model::Worker,
    session: Option<model::Session>,
}

/// A worker: one process of a registration, or a registration without one (kiln)
#[Object]
impl Worker {
    /// The registration's name
    async fn name(&self) -> &str {
        &self.registration.name
    }

    /// This start of the worker, or null if none is here
    async fn session(&self) -> Option<String> {
        self.of(|session| session.id.to_string())
    }

    /// kiln's version
    async fn version(&self) -> Option<String> {
        self.of(|session| session.version.clone())
    }

    /// When it first said hello
    async fn started(&self) -> Option<Time> {
        self.of(|session| Time(session.started))
    }

    /// When it last said anything
    async fn seen(&self) -> Option<Time> {
        self.of(|session| Time(session.seen))
    }

    /// What its operator said about it, `key=value` each
    async fn labels(&self) -> Vec<String> {
        let labels = self.session.iter().flat_map(|here| &here.labels.labels);
        labels
            .map(|(key, value)| format!("{key}={value}"))
            .collect()
    }

    /// The images that it has
    async fn images(&self) -> Vec<WorkerImage> {
        let images = self.session.iter().flat_map(|here| &here.labels.images);
        let image = |image: &kiln_core::farm::OfferedImage| WorkerImage {
            name: image.name.clone(),
            arch: image.arch.clone(),
            digest: image.digest.clone(),
        };
        images.map(image).collect()
    }

    /// How many jobs it may run at once
    async fn slots(&self) -> i32 {
        self.of(|session| small(session.slots)).unwrap_or(0)
    }

    /// How many jobs it would run at once now, as its memory and disk allow
    async fn capacity(&self) -> i32 {
        self.of(|session| small(session.capacity)).unwrap_or(0)
    }

    /// `ready`, `draining`, `unwell`, or `away`
    async fn mood(&self) -> &str {
        match self.session.as_ref().map(|session| &session.mood) {
            None => "away",
            Some(Mood::Ready) => "ready",
            Some(Mood::Draining) => "draining",
            Some(Mood::Unwell(_)) => "unwell",
        }
    }

    /// Why it is unwell
    async fn reason(&self) -> Option<&str> {
        match self.session.as_ref().map(|session| &session.mood) {
            Some(Mood::Unwell(reason)) => Some(reason),
            _ => None,
        }
    }

    /// What it lacks, when it would run fewer jobs than it has slots
    async fn short_of(&self) -> Option<String> {
        self.session.as_ref()?.short_of.clone()
    }

    /// Why it is given no jobs, when somebody paused it
    async fn paused(&self) -> Option<&str> {
        self.registration.paused.as_deref()
    }

    /// The jobs that it has
    async fn runs(&self) -> Vec<i32> {
        let leases = self.session.iter().flat_map(|session| &session.leases);
        leases.map(|(_, job)| job.0).collect()
    }
}

impl Worker {
    fn of<T>(&self, what: impl FnOnce(&model::Session) -> T) -> Option<T> {
        self.session.as_ref().map(what)
    }

    /// A registration's processes, or itself where there is none.
    pub(in super::super) fn all(registered: Registered) -> Vec<Self> {
        let Registered { worker, sessions } = registered;
        if sessions.is_empty() {
            return vec![Self {
                registration: worker,
                session: None,
            }];
        }
        let one = |session| Self {
            registration: worker.clone(),
            session: Some(session),
        };
        sessions.into_iter().map(one).collect()
    }
}

fn small(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
