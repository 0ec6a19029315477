//! Logs: what is stored, or one constant sentence where there is nothing and
//! there will be nothing. Who reads one as it grows may be shown bytes that are about to be
//! stored: see `hints::live`.

use axum::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use kiln_core::{
    farm::JobId,
    job::{JobStatus, TaskStatus},
};
use kiln_objects::{LogName, Reader};
use kiln_store::model::Job;
use std::time::Duration;
use tokio::{
    io::AsyncReadExt,
    sync::{broadcast, watch},
    time::Instant,
};

use super::{Actor, Error, Result, jobs, narrate, permission::Wish};
use crate::{
    hints::{Early, Otherwise, Piece},
    state::{Shared, State, stopped},
};

/// How many bytes are read at once.
const CHUNK: usize = 64 << 10;

/// Readers look at the truth this often, whatever hints they get.
const LOOK: Duration = Duration::from_secs(1);

/// A log that an actor may read.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    name: LogName,
    /// Whether it will grow no more.
    over: bool,
    /// What it says if it is over and empty.
    sentence: String,
    /// Whether it was removed: it says the sentence, whatever is there.
    removed: bool,
}

/// What a log says that was removed.
const REMOVED: &str =
    "[kiln] this log was removed: the farm keeps the logs of old jobs only for some time\n";

/// A job's own log.
pub(crate) fn of_job(job: &Job) -> Log {
    Log {
        name: LogName::Job(job.id),
        over: job.status.is_terminal(),
        sentence: match narrate::why(job) {
            Some(why) => format!("{why}\n"),
            None => "This job did not run.\n".into(),
        },
        removed: false,
    }
    .unless_removed(job)
}

/// The log of a job's task.
pub(crate) fn of_task(job: &Job, task: &str, status: TaskStatus) -> Log {
    Log {
        name: LogName::Task(job.id, task.to_owned()),
        over: status.is_terminal(),
        sentence: "This task did not run.\n".into(),
        removed: false,
    }
    .unless_removed(job)
}

/// Whether a job in this state has a log that the API shows: from RUNNING on, and
/// after a first attempt.
pub(crate) fn has_begun(job: &Job) -> bool {
    !matches!(job.status, JobStatus::Pending | JobStatus::Queued) || job.attempts > 0
}

/// Finds a log that this actor may read: the job's, or a task's by its name.
///
/// # Errors
/// [`Error::Hidden`] when there is none, or it is not for this actor.
pub(crate) async fn find(
    state: &State,
    actor: &Actor,
    job: JobId,
    task: Option<&str>,
    wish: Wish,
) -> Result<Log> {
    let job = jobs::find(state, actor, job, wish).await?;
    let Some(name) = task else {
        return Ok(of_job(&job));
    };
    let tasks = state.store.tasks(&[job.id]).await?;
    let task = tasks.iter().find(|task| task.name == name);
    let task = task.ok_or(Error::Hidden("task"))?;
    Ok(of_task(&job, name, task.status))
}

impl Log {
    fn unless_removed(self, job: &Job) -> Self {
        match job.logs_removed {
            None => self,
            Some(_) => Self {
                sentence: REMOVED.to_owned(),
                removed: true,
                ..self
            },
        }
    }

    /// How long what there is of it is.
    async fn stored(&self, state: &State) -> Result<u64> {
        match self.removed {
            true => Ok(0),
            false => Ok(state.objects.stored(&self.name).await?),
        }
    }

    /// How long it is now.
    ///
    /// # Errors
    /// When the storage fails.
    pub(crate) async fn length(&self, state: &State) -> Result<u64> {
        match self.stored(state).await? {
            0 if self.over => Ok(self.sentence.len() as u64),
            stored => Ok(stored),
        }
    }

    /// Whether there is nothing to read, and it may come yet.
    pub(crate) fn is_to_come(&self, length: u64) -> bool {
        length == 0 && !self.over
    }

    /// Its bytes [from, to), which are within [`Self::length`].
    ///
    /// # Errors
    /// When the storage fails.
    pub(crate) async fn read(&self, state: &State, from: u64, to: u64) -> Result<Reader> {
        if self.over && self.stored(state).await? == 0 {
            let bytes = self.sentence.as_bytes();
            let within = |at: u64| usize::try_from(at).unwrap_or(bytes.len()).min(bytes.len());
            let part = bytes[within(from)..within(to)].to_vec();
            return Ok(Box::new(std::io::Cursor::new(part)));
        }
        let read = state.objects.read(&self.name, from, to).await;
        read.map_err(Error::of_log)
    }

    /// Where to begin to read for this line, from 1: a byte, and the number of the line that it
    /// is of.
    ///
    /// # Errors
    /// When the storage fails.
    pub(crate) async fn seek_line(&self, state: &State, line: u64) -> Result<(u64, u64)> {
        match self.removed {
            true => Ok((0, 1)),
            false => Ok(state.objects.seek_line(&self.name, line).await?),
        }
    }

    /// Its last bytes as text, beginning with a whole character.
    ///
    /// # Errors
    /// When the storage fails.
    pub(crate) async fn tail(&self, state: &State, most: u64) -> Result<String> {
        let to = self.length(state).await?;
        let from = to.saturating_sub(most);
        let mut bytes = Vec::new();
        let reader = self.read(state, from, to).await?;
        reader.take(most).read_to_end(&mut bytes).await?;
        let continues = |byte: &&u8| from > 0 && **byte & 0xc0 == 0x80;
        let cut = bytes.iter().take(3).take_while(continues).count();
        Ok(String::from_utf8_lossy(&bytes[cut..]).into_owned())
    }
}

/// Somebody who reads a log while it grows.
pub(crate) struct Follower {
    state: Shared,
    actor: Actor,
    /// Who comes by a token may follow for as long as that is good.
    token: Option<HeaderMap>,
    job: JobId,
    task: Option<String>,
    wish: Wish,
    log: Log,
    growth: watch::Receiver<u64>,
    /// Told when it grew on another server.
    grown: watch::Receiver<()>,
    /// Of who wants bytes before they are stored.
    live: Option<broadcast::Receiver<Piece>>,
    changes: watch::Receiver<()>,
    stopping: watch::Receiver<bool>,
    early: Early,
    /// Whether the last bytes were early ones: that more is stored is told, or seen at the
    /// next look.
    shown: bool,
    reader: Option<Reader>,
    looked: Instant,
}

impl Follower {
    /// Reads a log from this byte on until it is over; if `early`, also bytes that are
    /// about to be stored.
    pub(crate) fn new(
        state: Shared,
        (actor, token): (Actor, Option<HeaderMap>),
        (job, task, wish): (JobId, Option<String>, Wish),
        log: Log,
        (at, early): (u64, bool),
    ) -> Self {
        let growth = state.objects.watch(&log.name);
        let grown = state.hints.log(&log.name);
        let live = early.then(|| state.hints.live(&log.name));
        if early {
            state.hints.want(&log.name);
        }
        let stopping = state.stopping.clone();
        let changes = state.hints.job(job);
        Self {
            changes,
            stopping,
            state,
            actor,
            token,
            job,
            task,
            wish,
            log,
            growth,
            grown,
            live,
            early: Early::new(at),
            shown: false,
            reader: None,
            looked: Instant::now(),
        }
    }

    /// The next bytes; none when the log is over, or not for this actor any more.
    ///
    /// # Errors
    /// When the storage fails, and when bytes that were shown early came otherwise, or not
    /// at all: nothing follows on what is not in the log.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            // Whoever reads more slowly than the log grows never comes to wait for more.
            let due = self.looked.elapsed() >= LOOK || *self.stopping.borrow();
            if due && !self.wait().await {
                return self.end();
            }
            if let Some(bytes) = self.read_on().await? {
                return Ok(Some(bytes));
            }
            if let Some(bytes) = self.show_early() {
                self.shown = true;
                return Ok(Some(bytes));
            }
            if std::mem::take(&mut self.shown) && self.wait().await {
                continue;
            }
            // Before the end is looked for: what comes after this is seen next time.
            let complete = self.log.over;
            if complete {
                // The farm's last line may be on its way.
                drop(self.state.lines.turn().await);
            }
            let length = self.log.length(&self.state).await?;
            let from = self.early.verified();
            if length > from {
                let reader = self.log.read(&self.state, from, length).await?;
                self.reader = Some(reader);
            } else if complete || !self.wait().await {
                return self.end();
            }
        }
    }

    /// Nothing follows; that must not be on what is not in the log.
    fn end(&self) -> Result<Option<Bytes>> {
        match self.early.is_owed() {
            false => Ok(None),
            true => Err(self.otherwise()),
        }
    }

    fn show_early(&mut self) -> Option<Bytes> {
        if self.log.over {
            return None;
        }
        self.early.next()
    }

    /// The connection breaks off, and who reads again reads what is stored.
    fn otherwise(&self) -> Error {
        let job = self.job;
        tracing::warn!(%job, "what was shown early of a log of job {job} was not stored so");
        Error::Unavailable
    }

    /// The log as it is now, if it is still for this actor.
    async fn find(&mut self) -> Result<Log> {
        if let Some(token) = &self.token {
            self.actor = Actor::known(&self.state, token).await?;
        }
        let task = self.task.as_deref();
        find(&self.state, &self.actor, self.job, task, self.wish).await
    }

    async fn read_on(&mut self) -> Result<Option<Bytes>> {
        while let Some(reader) = &mut self.reader {
            let mut bytes = BytesMut::with_capacity(CHUNK);
            if reader.read_buf(&mut bytes).await? == 0 {
                self.reader = None;
                break;
            }
            let new = self.early.stored(bytes.freeze());
            let new = new.map_err(|Otherwise| self.otherwise())?;
            if !new.is_empty() {
                return Ok(Some(new));
            }
        }
        Ok(None)
    }

    /// Waits for growth, and looks each second whether the log is over. False when
    /// it is not for this actor any more, or the server ends.
    async fn wait(&mut self) -> bool {
        match self.woken().await {
            Woken::Stopping => return false,
            Woken::Grown => return true,
            Woken::Look => {}
        }
        self.looked = Instant::now();
        if self.live.is_some() {
            self.state.hints.want(&self.log.name);
        }
        match self.find().await {
            Ok(log) => self.log = log,
            Err(Error::Unavailable) => {}
            Err(_) => return false,
        }
        true
    }

    async fn woken(&mut self) -> Woken {
        let look = self.looked + LOOK;
        // Where nobody tells any more only looking is left.
        let later = async || {
            tokio::time::sleep_until(look).await;
            Woken::Look
        };
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut self.stopping) => return Woken::Stopping,
                () = tokio::time::sleep_until(look) => return Woken::Look,
                told = self.growth.changed() => return match told {
                    Ok(()) => Woken::Grown,
                    Err(_) => later().await,
                },
                told = self.grown.changed() => return match told {
                    Ok(()) => Woken::Grown,
                    Err(_) => later().await,
                },
                told = self.changes.changed() => return match told {
                    Ok(()) => Woken::Look,
                    Err(_) => later().await,
                },
                piece = receive(&mut self.live) => {
                    self.early.came(piece);
                    if self.early.fits() {
                        return Woken::Grown;
                    }
                }
            }
        }
    }
}

/// Why a follower goes on.
enum Woken {
    /// The server ends.
    Stopping,
    /// There may be more to read.
    Grown,
    /// It is to look at the job.
    Look,
}

/// The next bytes that are not stored yet, for who wants such.
async fn receive(live: &mut Option<broadcast::Receiver<Piece>>) -> Piece {
    if let Some(live) = live {
        loop {
            match live.recv().await {
                Ok(piece) => return piece,
                // What was missed of it comes when it is stored.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => break,
            }
        }
    }
    std::future::pending().await
}
