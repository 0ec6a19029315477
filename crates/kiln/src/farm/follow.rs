//! Following a job to its end: its state, and its logs as they grow.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use kiln_core::job::{JobStatus, TaskStatus};
use kiln_worker::{Body, Cause, Event, LogId};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use super::{
    Farm, FarmError,
    api::{Job, Log},
    logs::{Piece, Stream},
};
use crate::{exit::Failure, ui, ui::display::Display};

/// How often the job is looked at.
const LOOK: Duration = Duration::from_millis(400);
/// How long a farm that is away is waited for.
const AWAY: Duration = Duration::from_mins(10);
/// How many pieces of logs wait to be shown.
const PIECES: usize = 16;

/// A job that is followed.
struct Following<'a> {
    farm: &'a Farm,
    display: &'a Display,
    since: Instant,
    out: mpsc::Sender<Piece>,
    /// The job's own log.
    own: Option<Reading>,
    /// Tasks whose logs were not begun, by their places.
    next: usize,
    /// The task whose log is read. One after the other, as they ran.
    task: Option<Reading>,
    /// Whether a log is over, by task.
    over: HashMap<String, watch::Sender<bool>>,
    ended: watch::Sender<bool>,
    /// Why the job waits, as it was said last.
    waiting: Option<String>,
}

struct Reading {
    log: LogId,
    stream: JoinHandle<Result<(), FarmError>>,
}

/// Shows a job until it has ended, and gives what it was then.
///
/// # Errors
/// When the farm refuses, or stays away.
pub async fn follow(farm: &Farm, id: i32, display: &Display) -> Result<Job, Failure> {
    let (out, mut pieces) = mpsc::channel(PIECES);
    let mut following = Following {
        farm,
        display,
        since: Instant::now(),
        out,
        own: None,
        next: 0,
        task: None,
        over: HashMap::new(),
        ended: watch::channel(false).0,
        waiting: None,
    };
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            Some((log, bytes)) = pieces.recv() => {
                display.append(following.since.elapsed(), &log, &bytes).await;
            }
            _ = looks.tick() => match farm.job(id).await {
                Ok(job) => {
                    away = None;
                    if following.look(&job).await? && drained(&mut pieces, &following).await {
                        following.end(&job).await;
                        return Ok(job);
                    }
                }
                Err(FarmError::Away(why)) => {
                    let since = *away.get_or_insert_with(|| {
                        ui::note(&format!("{why}; waiting for it"));
                        Instant::now()
                    });
                    if since.elapsed() > AWAY {
                        return Err(Failure::host(why));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Shows what still waits to be shown.
async fn drained(pieces: &mut mpsc::Receiver<Piece>, following: &Following<'_>) -> bool {
    while let Ok((log, bytes)) = pieces.try_recv() {
        let at = following.since.elapsed();
        following.display.append(at, &log, &bytes).await;
    }
    true
}

impl Following<'_> {
    /// Does what the job's state asks for. True when all has been read.
    async fn look(&mut self, job: &Job) -> Result<bool, Failure> {
        if job.waiting != self.waiting {
            self.waiting.clone_from(&job.waiting);
            if let Some(why) = &job.waiting {
                ui::note(&format!("job {} waits: {why}", job.id));
            }
        }
        self.tell_ends(job);
        if let (None, Some(log)) = (&self.own, &job.log) {
            self.own = Some(self.read(LogId::Job, log, self.ended.subscribe()));
        }
        self.tasks(job).await?;
        let own_read = match &mut self.own {
            Some(own) => read_to_end(own).await?,
            None => true,
        };
        Ok(job.ended() && own_read && self.task.is_none() && self.next >= job.tasks.len())
    }

    /// Tells the streams which logs are over.
    fn tell_ends(&self, job: &Job) {
        for task in &job.tasks {
            let over = job.ended() || is_over(&task.status);
            if let Some(sender) = self.over.get(&task.name) {
                sender.send_if_modified(|known| std::mem::replace(known, over) != over);
            }
        }
        let ended = job.ended();
        self.ended
            .send_if_modified(|known| std::mem::replace(known, ended) != ended);
    }

    async fn tasks(&mut self, job: &Job) -> Result<(), Failure> {
        if let Some(reading) = &mut self.task {
            if !read_to_end(reading).await? {
                return Ok(());
            }
            self.tell(job, self.next - 1).await;
            self.task = None;
        }
        let mut waiting: VecDeque<_> = job.tasks.iter().skip(self.next).collect();
        while let Some(task) = waiting.pop_front() {
            match (task.status.as_str(), &task.log) {
                ("PENDING", _) if !job.ended() => return Ok(()),
                ("RUNNING" | "SUCCESS" | "FAILED", Some(log)) => {
                    self.display
                        .event(&self.event(&task.name, TaskStatus::Running))
                        .await;
                    let (sender, over) = watch::channel(is_over(&task.status) || job.ended());
                    self.over.insert(task.name.clone(), sender);
                    self.task = Some(self.read(LogId::Task(task.name.clone()), log, over));
                    self.next += 1;
                    return Ok(());
                }
                _ => {
                    self.next += 1;
                    self.tell(job, self.next - 1).await;
                }
            }
        }
        Ok(())
    }

    fn read(&self, log: LogId, at: &Log, over: watch::Receiver<bool>) -> Reading {
        let stream = Stream {
            farm: self.farm.clone(),
            url: at.full_url.clone(),
            log: log.clone(),
            over,
            out: self.out.clone(),
        };
        Reading {
            log,
            stream: tokio::spawn(stream.run()),
        }
    }

    /// Shows how a task ended.
    async fn tell(&self, job: &Job, place: usize) {
        let Some(task) = job.tasks.get(place) else {
            return;
        };
        let status = match task.status.as_str() {
            "SUCCESS" => TaskStatus::Success,
            "FAILED" => TaskStatus::Failed,
            _ => TaskStatus::Skipped,
        };
        self.display.event(&self.event(&task.name, status)).await;
    }

    fn event(&self, task: &str, status: TaskStatus) -> Event {
        let body = Body::Task {
            task: task.to_owned(),
            status,
            exit: None,
            duration: None,
        };
        Event::new(self.since.elapsed(), body)
    }

    async fn end(&self, job: &Job) {
        let (status, cause) = match job.status.as_str() {
            "SUCCESS" => (JobStatus::Success, Cause::Finished),
            "TIMEOUT" => (JobStatus::Timeout, Cause::Timeout),
            "CANCELLED" => (JobStatus::Cancelled, Cause::Cancelled),
            _ => (JobStatus::Failed, Cause::Finished),
        };
        let body = Body::JobEnded {
            status,
            cause,
            reason: job.reason.clone(),
            duration: self.since.elapsed(),
        };
        self.display
            .event(&Event::new(self.since.elapsed(), body))
            .await;
    }
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        for reading in [&self.own, &self.task].into_iter().flatten() {
            reading.stream.abort();
        }
    }
}

fn is_over(status: &str) -> bool {
    !matches!(status, "PENDING" | "RUNNING")
}

/// Whether a log has been read to its end.
async fn read_to_end(reading: &mut Reading) -> Result<bool, Failure> {
    if !reading.stream.is_finished() {
        return Ok(false);
    }
    // Asked again later it has been taken out by then, or is the job's own.
    let ended = std::mem::replace(&mut reading.stream, tokio::spawn(async { Ok(()) })).await;
    let ended = ended.map_err(|error| Failure::host(format!("{}: {error}", reading.log)))?;
    ended.map(|()| true).map_err(Failure::from)
}
