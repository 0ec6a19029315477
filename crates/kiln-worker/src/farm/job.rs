//! One job, from its offer to the last word about it.
//!
//! ```text
//! offer ─ prepare ─ kiln_worker::run ─ the rest of its log ─ artifacts ─ end
//!            │              │
//!            └──────────────┴─ not begun, and not the job's fault ─ return
//! ```
//!
//! Whatever happens, the lease is ended or known to be lost when this is over.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use kiln_core::{
    farm::lease as lease_rules,
    job::JobStatus,
    manifest::{self, Manifest, SecretRef},
};
use kiln_vm::machine::{Guest, GuestSpec, Machine, StartError};
use kiln_wire::{
    message::{Offer, Recipe},
    report::{End, Return},
};
use tokio::time::timeout;

use super::{
    artifacts,
    directory::JobDirectory,
    health::Blame,
    host::{Place, Request},
    internal::Internal,
    lease::{Answer, Lease},
    reporter::LeaseReporter,
    spool::Spool,
    uploader::Uploader,
    worker::Worker,
};
use crate::{Cause, Job, Limits, LogId, NoHold, Outcome, Reporter};

/// How long the rest of a log may take where the job goes on elsewhere, or the
/// worker ends.
const LAST_LINES: Duration = Duration::from_secs(5);
/// What the owner reads of a job that a worker's operator stopped.
const STOPPED: &str = lease_rules::STOPPED;

/// A job that can run.
struct Prepared {
    directory: JobDirectory,
    job: Job,
    machine: Watched,
    reporter: LeaseReporter,
    spool: Arc<Spool>,
    /// Where the job's log ends at the server, if that is known.
    log_end: Option<u64>,
    /// What its owner should know, first in its log.
    notices: Vec<String>,
}

/// Why a job can't.
enum Unprepared {
    /// By its own fault, for its owner.
    Job(String),
    /// By the worker's, for the operator.
    Worker(String),
}

impl From<std::io::Error> for Unprepared {
    fn from(error: std::io::Error) -> Self {
        Self::Worker(error.to_string())
    }
}

/// Runs a job.
pub(super) async fn supervise(worker: &Worker, lease: &Arc<Lease>, offer: Offer) {
    let (job, fence) = (lease.job.0, lease.fence.0);
    tracing::info!(job, fence, "job {job} is taken, attempt {}", offer.attempt);
    let prepared = tokio::select! {
        biased;
        () = lease.stopped() => {
            return give_back(lease, "the worker was stopped", false).await;
        }
        prepared = prepare(worker, lease, &offer) => prepared,
    };
    match prepared {
        Ok(prepared) => run(worker, lease, prepared).await,
        Err(Unprepared::Job(reason)) => fail(lease, reason, Vec::new()).await,
        Err(Unprepared::Worker(operator)) => {
            tracing::error!(job, fence, operator, "job {job} can't run here: {operator}");
            let reason = "this worker could not run the job";
            let counts = unwell(worker, lease, Blame::Worker, reason).await;
            give_back(lease, reason, counts).await;
        }
    }
}

async fn prepare(
    worker: &Worker,
    lease: &Arc<Lease>,
    offer: &Offer,
) -> Result<Prepared, Unprepared> {
    let Recipe::Manifest { text } = &offer.recipe;
    let parsed = manifest::parse(text.as_bytes());
    let mut manifest = parsed
        .map_err(|refused| Unprepared::Job(format!("the manifest can't be used: {refused}")))?
        .manifest;
    let notices = leave_out(&mut manifest, offer.secrets);
    let directory = worker.directory.job(lease.fence)?;
    let file = tempfile::tempfile_in(directory.path())?;
    let spool = Arc::new(Spool::new(file, worker.config.spool)?);
    let internal = Internal::new(worker.config.client.clone(), &offer.token)
        .ok_or_else(|| Unprepared::Job("the farm gave this job no token".to_owned()))?;
    let request = Request {
        manifest: &manifest,
        owner: &offer.owner,
        dir: &directory.guest(),
        farm: Arc::new(internal),
    };
    let Place {
        machine,
        spec,
        digest,
    } = worker
        .host
        .place(request)
        .await
        .map_err(|unfit| Unprepared::Worker(unfit.to_string()))?;
    Ok(Prepared {
        job: Job {
            manifest,
            id: u32::try_from(offer.job.0).unwrap_or_default(),
            url: offer.url.clone(),
            environment: Vec::new(),
            secrets: Vec::new(),
            overlays: Vec::new(),
            artifacts_dir: directory.artifacts(),
            deadline: Duration::from_secs(offer.deadline_seconds),
            limits: Limits {
                artifact: offer.artifact_limit,
                ..worker.config.limits
            },
            guest: spec,
        },
        machine: Watched {
            inner: machine,
            blame: Mutex::default(),
        },
        reporter: LeaseReporter {
            lease: Arc::clone(lease),
            spool: Arc::clone(&spool),
            digest,
        },
        directory,
        spool,
        log_end: offer.log,
        notices,
    })
}

/// Takes out of a manifest what this farm does not deliver; says what.
fn leave_out(manifest: &mut Manifest, secrets: bool) -> Vec<String> {
    let mut notices = Vec::new();
    if !secrets && !manifest.secrets().is_empty() {
        let names: Vec<&str> = manifest.secrets().iter().map(SecretRef::as_str).collect();
        notices.push(format!(
            "secrets: the job was submitted without its secrets; left out: {}",
            names.join(", ")
        ));
        manifest.secrets = None;
    }
    // The server has said of these in the log that it doesn't deliver them.
    manifest.oauth = None;
    manifest.triggers = None;
    notices
}

async fn run(worker: &Worker, lease: &Arc<Lease>, prepared: Prepared) {
    let Prepared {
        directory,
        job,
        machine,
        reporter,
        spool,
        log_end,
        notices,
    } = prepared;
    let running = Box::pin(async {
        for notice in notices {
            let line = format!("[kiln] warning: {notice}\n");
            // Whoever takes no more is found out by the job itself.
            let _ = reporter.say(&LogId::Job, line.as_bytes()).await;
        }
        crate::run(&machine, &job, &reporter, &NoHold, lease.cancelled()).await
    });
    let mut running = pin!(running);
    let live = worker.live.of_job(lease.fence);
    let uploader = Uploader::new(Arc::clone(lease), Arc::clone(&spool), log_end);
    let mut uploading = pin!(uploader.run(live));
    let mut uploaded = None;
    let outcome = loop {
        tokio::select! {
            ended = &mut uploading, if uploaded.is_none() => uploaded = Some(ended),
            outcome = &mut running => break outcome,
        }
    };
    spool.close();
    let fault = (!lease.has_begun())
        .then(|| machine.blame(&outcome))
        .flatten();
    let stopped = uploaded.is_none() && *lease.cancelled().borrow();
    let uploaded = match uploaded {
        Some(uploaded) => uploaded,
        None if fault.is_some() || stopped => {
            // Its last lines are good to have, and no more.
            timeout(LAST_LINES, uploading).await.unwrap_or(Ok(()))
        }
        None => uploading.await,
    };
    if lease.has_started() {
        worker.health.good();
    }
    let reason = outcome.reason.clone().unwrap_or_default();
    match (uploaded, fault) {
        _ if lease.is_lost() => {}
        (Err(reason), _) => fail(lease, reason, outcome.tasks).await,
        _ if stopped && !lease.has_begun() => {
            give_back(lease, "the worker was stopped", false).await;
        }
        _ if stopped => fail(lease, STOPPED.to_owned(), outcome.tasks).await,
        (Ok(()), Some(blame)) => {
            let counts = unwell(worker, lease, blame, &reason).await;
            give_back(lease, &reason, counts).await;
        }
        (Ok(()), None) => conclude(lease, &directory, outcome).await,
    }
}

/// The artifacts, then the end.
async fn conclude(lease: &Lease, directory: &JobDirectory, outcome: Outcome) {
    let dir = directory.artifacts();
    if outcome.status == JobStatus::Success {
        for artifact in &outcome.artifacts {
            let uploaded = tokio::select! {
                biased;
                () = lease.stopped() => {
                    return fail(lease, STOPPED.to_owned(), outcome.tasks).await;
                }
                uploaded = artifacts::upload(lease, &dir, artifact) => uploaded,
            };
            let path = &artifact.path;
            let reason = match uploaded {
                Ok(()) => continue,
                Err(artifacts::Failed::Lost) => return,
                Err(artifacts::Failed::Refused(why)) => {
                    format!("artifacts: the farm did not take {path}: {why}")
                }
                Err(artifacts::Failed::Unreadable(error)) => {
                    let job = lease.job.0;
                    tracing::error!(job, %error, "an artifact of job {job} can't be read: {error}");
                    format!("artifacts: the host could not read {path} again")
                }
            };
            return fail(lease, reason, outcome.tasks).await;
        }
    }
    let end = End {
        status: outcome.status,
        reason: outcome.reason,
        tasks: outcome.tasks,
    };
    tell_end(lease, &end).await;
}

async fn fail(lease: &Lease, reason: String, tasks: Vec<(String, kiln_core::job::TaskStatus)>) {
    let end = End {
        status: JobStatus::Failed,
        reason: Some(reason),
        tasks,
    };
    tell_end(lease, &end).await;
}

async fn tell_end(lease: &Lease, end: &End) {
    let (job, fence, status) = (lease.job.0, lease.fence.0, end.status);
    lease.leaves();
    match lease.post("end", json(end)).await {
        Answer::Taken(_) => tracing::info!(job, fence, "job {job} has ended: {status}"),
        answer => unheard(lease, &answer),
    }
}

/// Gives a job back that has not begun.
pub(super) async fn give_back(lease: &Lease, reason: &str, counts: bool) {
    let (job, fence) = (lease.job.0, lease.fence.0);
    let back = Return {
        reason: reason.to_owned(),
        counts,
    };
    lease.leaves();
    match lease.post("return", json(&back)).await {
        Answer::Taken(_) => tracing::info!(job, fence, "job {job} is given back: {reason}"),
        answer => unheard(lease, &answer),
    }
}

fn json(message: &impl serde::Serialize) -> Vec<u8> {
    // Texts and numbers alone: there is nothing that JSON can't say.
    serde_json::to_vec(message).unwrap_or_default()
}

/// The last word about a job did not get through. Its lease runs out.
fn unheard(lease: &Lease, answer: &Answer) {
    if !matches!(answer, Answer::Lost) {
        let (job, fence) = (lease.job.0, lease.fence.0);
        tracing::error!(job, fence, ?answer, "the end of job {job} is refused");
    }
}

/// A job could not begin here. Whether that counts as one of its attempts.
async fn unwell(worker: &Worker, lease: &Lease, blame: Blame, reason: &str) -> bool {
    let reason = match worker.host.check().await {
        Ok(()) => reason.to_owned(),
        Err(reason) => reason,
    };
    let counts = worker.health.bad(blame, lease.job, &reason);
    worker.tell();
    counts
}

/// A machine, and whose fault it was that it started nothing.
struct Watched {
    inner: Arc<dyn Machine>,
    blame: Mutex<Option<Blame>>,
}

impl Watched {
    /// Whose fault it was that the job did not begin, when it was not its own.
    fn blame(&self, outcome: &Outcome) -> Option<Blame> {
        match outcome.cause {
            Cause::NotStarted => *self.blame.lock().unwrap_or_else(PoisonError::into_inner),
            Cause::HostFailed => Some(Blame::Unclear),
            _ => None,
        }
    }
}

#[async_trait]
impl Machine for Watched {
    async fn start(&self, spec: &GuestSpec) -> Result<Box<dyn Guest>, StartError> {
        let started = self.inner.start(spec).await;
        started.inspect_err(|error| {
            let mut blame = self.blame.lock().unwrap_or_else(PoisonError::into_inner);
            *blame = Some(Blame::of(error));
        })
    }
}
