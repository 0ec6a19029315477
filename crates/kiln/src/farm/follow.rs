//! Following a job to its end: its state, and its logs as they grow.
//!
//! The job's own log says where each task begins and ends. It is shown up to
//! there, then the task's, then the rest: as one would read it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_core::job::{JobStatus, TaskStatus};
use kiln_worker::{Body, Cause, Event, LogId};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::sleep_until,
};

use super::{
    Farm, FarmError,
    api::{Job, Log, Task},
    logs::{Piece, Stream},
};
use crate::{exit::Failure, ui, ui::display::Display};

/// How often the job is looked at.
const LOOK: Duration = Duration::from_millis(400);
/// How soon it is when its log says that something happened, or it has ended.
const SOON: Duration = Duration::from_millis(50);
/// How long a farm that is away is waited for.
const AWAY: Duration = Duration::from_mins(10);
/// For how many looks a task's log waits for the job's to say that the task begins:
/// a log that met its limit never does.
const UNSAID: u8 = 10;
/// How many pieces of a log wait to be shown.
const PIECES: usize = 16;

/// Shows a job until it has ended, and gives what it was then.
///
/// # Errors
/// When the farm refuses, or stays away.
pub async fn follow(farm: &Farm, id: i32, display: &Display) -> Result<Job, Failure> {
    let mut following = Following::new(farm, display);
    let mut look_at = Instant::now();
    // What comes of the logs is shown while the answer is waited for.
    let mut asked = None;
    let mut away: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            Some(piece) = following.pieces.recv(), if following.wants_task() => {
                following.show_task(piece).await;
            }
            Some((_, bytes)) = following.own_pieces.recv(), if following.wants_own() => {
                following.rest = bytes;
                following.show_own().await;
                look_at = look_at.min(Instant::now() + SOON);
            }
            () = sleep_until(look_at.into()), if asked.is_none() => {
                asked = Some(Box::pin(farm.job(id)));
            }
            answer = answer(&mut asked) => match answer {
                Ok(job) => {
                    away = None;
                    if following.look(&job).await? {
                        following.end(&job).await;
                        return Ok(job);
                    }
                    look_at = Instant::now() + if job.ended() { SOON } else { LOOK };
                }
                Err(FarmError::Away(why)) => {
                    look_at = Instant::now() + LOOK;
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

/// Waits for the answer; for ever when nothing was asked.
async fn answer<F: Future + Unpin>(asked: &mut Option<F>) -> F::Output {
    let Some(asking) = asked else {
        return std::future::pending().await;
    };
    let answer = asking.await;
    *asked = None;
    answer
}

/// A job that is followed.
struct Following<'a> {
    farm: &'a Farm,
    display: &'a Display,
    since: Instant,
    /// The job's own log.
    own: Option<Reading>,
    own_out: mpsc::Sender<Piece>,
    own_pieces: mpsc::Receiver<Piece>,
    /// What of it waits to be shown.
    rest: Bytes,
    /// It goes on when the task of this place has been shown.
    hold: Option<usize>,
    /// The task whose log is read. One after the other, as they ran.
    task: Option<Reading>,
    /// Looks since it is read and the job's log has not come to it.
    unsaid: u8,
    out: mpsc::Sender<Piece>,
    pieces: mpsc::Receiver<Piece>,
    /// How many tasks have been begun with, or passed.
    next: usize,
    names: Vec<String>,
    /// Why the job waits, as it was seen last, and whether that was said.
    waiting: (Option<String>, bool),
}

/// A log that is read.
struct Reading {
    log: LogId,
    stream: JoinHandle<Result<(), FarmError>>,
    over: watch::Sender<bool>,
    /// Whether all of it came.
    read: bool,
}

impl<'a> Following<'a> {
    fn new(farm: &'a Farm, display: &'a Display) -> Self {
        let (own_out, own_pieces) = mpsc::channel(PIECES);
        let (out, pieces) = mpsc::channel(PIECES);
        Self {
            farm,
            display,
            since: Instant::now(),
            own: None,
            own_out,
            own_pieces,
            rest: Bytes::new(),
            hold: None,
            task: None,
            unsaid: 0,
            out,
            pieces,
            next: 0,
            names: Vec::new(),
            waiting: (None, false),
        }
    }

    fn wants_own(&self) -> bool {
        self.hold.is_none() && self.rest.is_empty()
    }

    /// Whether the job's own log has been shown up to where the task begins. One
    /// that is over says no more about it.
    fn wants_task(&self) -> bool {
        let own_is_shown = self.own.as_ref().is_none_or(|own| own.read)
            && self.wants_own()
            && self.own_pieces.is_empty();
        let begins = self.task.is_some() && self.hold == self.next.checked_sub(1);
        begins || own_is_shown || self.unsaid >= UNSAID
    }

    /// Tasks that have been shown whole.
    fn shown(&self) -> usize {
        self.next - usize::from(self.task.is_some())
    }

    /// Does what the job's state asks for. True when all has been shown.
    async fn look(&mut self, job: &Job) -> Result<bool, Failure> {
        self.say_waiting(job);
        if self.names.is_empty() {
            self.names = job.tasks.iter().map(|task| task.name.clone()).collect();
        }
        if let (None, Some(log)) = (&self.own, &job.log) {
            self.own = Some(self.read(LogId::Job, log, self.own_out.clone()));
        }
        if let Some(own) = &mut self.own {
            own.look(job.ended()).await?;
        }
        self.tasks(job).await?;
        if self.hold.is_some_and(|place| place < self.shown()) {
            self.hold = None;
        }
        self.show_own().await;
        while self.wants_own() {
            let Ok((_, bytes)) = self.own_pieces.try_recv() else {
                break;
            };
            self.rest = bytes;
            self.show_own().await;
        }
        let own_read = self.own.as_ref().is_none_or(|own| own.read);
        let all_shown =
            self.shown() >= job.tasks.len() && self.wants_own() && self.own_pieces.is_empty();
        Ok(job.ended() && own_read && all_shown)
    }

    /// What waits for a moment only is not worth a line.
    fn say_waiting(&mut self, job: &Job) {
        let (known, said) = &mut self.waiting;
        if *known != job.waiting {
            self.waiting = (job.waiting.clone(), false);
        } else if let (Some(why), false) = (known, *said) {
            ui::note(&format!("job {} waits: {why}", job.id));
            *said = true;
        }
    }

    async fn tasks(&mut self, job: &Job) -> Result<(), Failure> {
        if let Some(reading) = &mut self.task {
            let task = job.tasks.get(self.next - 1);
            reading
                .look(job.ended() || task.is_some_and(is_over))
                .await?;
            let read = reading.read;
            if !self.wants_task() {
                self.unsaid += 1;
            }
            if !read || !self.wants_task() {
                return Ok(());
            }
            while let Ok(piece) = self.pieces.try_recv() {
                self.show_task(piece).await;
            }
            self.task = None;
            self.unsaid = 0;
            self.tell(task).await;
        }
        while let Some(task) = job.tasks.get(self.next) {
            match (task.status.as_str(), &task.log) {
                ("PENDING", _) if !job.ended() => return Ok(()),
                ("RUNNING" | "SUCCESS" | "FAILED", Some(log)) => {
                    self.event(&task.name, TaskStatus::Running).await;
                    let id = LogId::Task(task.name.clone());
                    self.task = Some(self.read(id, log, self.out.clone()));
                    self.next += 1;
                    return Ok(());
                }
                _ => {
                    self.next += 1;
                    self.tell(Some(task)).await;
                }
            }
        }
        Ok(())
    }

    fn read(&self, log: LogId, at: &Log, out: mpsc::Sender<Piece>) -> Reading {
        let (tell, over) = watch::channel(false);
        let stream = Stream {
            farm: self.farm.clone(),
            url: at.full_url.clone(),
            log: log.clone(),
            over,
            out,
        };
        Reading {
            log,
            stream: tokio::spawn(stream.run()),
            over: tell,
            read: false,
        }
    }

    /// Shows the job's own log up to where the next task begins.
    async fn show_own(&mut self) {
        if self.hold.is_some() || self.rest.is_empty() {
            return;
        }
        let end = match beginning(&self.rest, &self.names, self.shown()) {
            Some((place, end)) => {
                self.hold = Some(place);
                end
            }
            None => self.rest.len(),
        };
        let now = self.rest.split_to(end);
        self.append(&LogId::Job, &now).await;
    }

    /// The job's log has said already that the task begins.
    async fn show_task(&mut self, (log, bytes): Piece) {
        let first = log.task().map(|name| format!("[kiln] task {name}\n"));
        let said = first.filter(|first| bytes.starts_with(first.as_bytes()));
        let bytes = bytes.slice(said.map_or(0, |said| said.len())..);
        if !bytes.is_empty() {
            self.append(&log, &bytes).await;
        }
    }

    async fn append(&self, log: &LogId, bytes: &[u8]) {
        self.display.append(self.since.elapsed(), log, bytes).await;
    }

    /// Shows how a task ended.
    async fn tell(&self, task: Option<&Task>) {
        let Some(task) = task else { return };
        let status = match task.status.as_str() {
            "SUCCESS" => TaskStatus::Success,
            "FAILED" => TaskStatus::Failed,
            _ => TaskStatus::Skipped,
        };
        self.event(&task.name, status).await;
    }

    async fn event(&self, task: &str, status: TaskStatus) {
        let body = Body::Task {
            task: task.to_owned(),
            status,
            exit: None,
            duration: None,
        };
        self.display
            .event(&Event::new(self.since.elapsed(), body))
            .await;
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

impl Reading {
    /// Tells whether the log is over; finds out whether all of it came.
    async fn look(&mut self, over: bool) -> Result<(), Failure> {
        self.over
            .send_if_modified(|known| std::mem::replace(known, over) != over);
        if !self.read && self.stream.is_finished() {
            let ended = (&mut self.stream).await;
            ended.map_err(|error| Failure::host(format!("{}: {error}", self.log)))??;
            self.read = true;
        }
        Ok(())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stream.abort();
    }
}

fn is_over(task: &Task) -> bool {
    !matches!(task.status.as_str(), "PENDING" | "RUNNING")
}

/// Where the job's log says that a task begins which was not shown yet: the
/// task's place, and the end of that line.
fn beginning(log: &[u8], names: &[String], shown: usize) -> Option<(usize, usize)> {
    let mut at = 0;
    for line in log.split_inclusive(|&byte| byte == b'\n') {
        at += line.len();
        let text = line
            .strip_prefix(b"[kiln] task ")
            .and_then(|text| text.strip_suffix(b"\n"));
        let place = text.and_then(|text| names.iter().position(|name| name.as_bytes() == text));
        if let Some(place) = place.filter(|place| *place >= shown) {
            return Some((place, at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jobs_log_stops_where_a_task_begins_that_was_not_shown() {
        let names = ["one", "two"].map(str::to_owned);
        let log = b"x\n[kiln] task one\n[kiln] task one: success\n[kiln] task two\nrest";
        let (place, end) = beginning(log, &names, 0).unwrap();
        assert_eq!((place, &log[..end]), (0, &b"x\n[kiln] task one\n"[..]));
        let rest = &log[end..];
        let (place, end) = beginning(rest, &names, 1).unwrap();
        assert_eq!(place, 1);
        assert_eq!(&rest[end..], b"rest");
        assert_eq!(beginning(log, &names, 2), None);
    }
}
