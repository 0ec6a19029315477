//! Reading a farm's logs, live and over lost connections.
//!
//! Whoever follows a log may be shown bytes that are about to be stored. When the connection
//! breaks off then, they are read once more and compared (`shown`).

mod shown;

use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::BodyExt as _;
use kiln_wire::client::Answer;
use kiln_worker::LogId;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use self::shown::Shown;
use super::{
    Farm, FarmError,
    api::{Job, Log},
};
use crate::{
    exit::{Exit, Failure},
    ui::{self, display::Display},
};

/// How long to wait when a log had no more to say and is not over.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a farm that is away is waited for.
const AWAY: Duration = Duration::from_mins(10);
/// How long between tries.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);
/// How long a stream may stay open when its log is over.
const LINGER: Duration = Duration::from_secs(5);

/// A piece of a log.
pub type Piece = (LogId, Bytes);

/// A log that is read.
pub struct Stream {
    /// The farm.
    pub farm: Farm,
    /// Where the log is.
    pub url: String,
    /// Which it is.
    pub log: LogId,
    /// Whether its job or task is over.
    pub over: watch::Receiver<bool>,
    /// Who wants it.
    pub out: mpsc::Sender<Piece>,
}

impl Stream {
    /// Sends the log until it is over. A farm that goes away is waited for.
    ///
    /// # Errors
    /// [`FarmError`] when it does not come back, or refuses.
    pub async fn run(mut self) -> Result<(), FarmError> {
        let mut shown = Shown::default();
        let mut well = Instant::now();
        loop {
            // Known before it is asked: what is read then is all there is.
            let over = *self.over.borrow();
            let before = shown.end();
            match self.read(&mut shown, over).await {
                Ok(()) if over => return Ok(()),
                Ok(()) => {
                    well = Instant::now();
                    tokio::select! {
                        () = sleep(PAUSE) => {}
                        _ = self.over.changed() => {}
                    }
                }
                Err(FarmError::Away(why)) if well.elapsed() < AWAY => {
                    if shown.end() > before {
                        well = Instant::now();
                    }
                    tracing::info!("{why}; once more");
                    sleep(BETWEEN_TRIES).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads on, for as long as the farm has something to say.
    async fn read(&mut self, shown: &mut Shown, over: bool) -> Result<(), FarmError> {
        let url = match over {
            true => self.url.clone(),
            false => format!("{}?follow=early", self.url),
        };
        let from = shown.again();
        // The last byte again: a range that begins at the end is none.
        let again = from.checked_sub(1);
        let answer = self.farm.get(&url, again).await?;
        // A stream begins where it was asked to, and is no part of anything.
        let start = start(&answer).or(again.filter(|_| !over)).unwrap_or(0);
        let mut skip = from.saturating_sub(start);
        let mut body = answer.into_body();
        let mut ending = self.over.clone();
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                // The connection may be one of those that nobody ends.
                () = lingered(&mut ending), if !over => return Ok(()),
            };
            let Some(frame) = frame else {
                if let Some(notice) = shown.ended(over) {
                    // Who wanted it may have gone.
                    let _ = self.out.send((self.log.clone(), notice)).await;
                }
                return Ok(());
            };
            let frame =
                frame.map_err(|error| FarmError::Away(format!("the log broke off: {error}")))?;
            let Ok(mut bytes) = frame.into_data() else {
                continue;
            };
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
            skip -= known as u64;
            for bytes in shown.read(&bytes.split_off(known)) {
                if !bytes.is_empty() && self.out.send((self.log.clone(), bytes)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

async fn lingered(over: &mut watch::Receiver<bool>) {
    if over.wait_for(|over| *over).await.is_err() {
        std::future::pending::<()>().await;
    }
    sleep(LINGER).await;
}

/// The place of an answer's first byte, if it is a part.
fn start(answer: &Answer) -> Option<u64> {
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return None;
    }
    let range = answer.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    let first = range.strip_prefix("bytes ")?.split('-').next()?;
    first.parse().ok()
}

/// Prints a job's logs: all, one after the other, or one task's.
///
/// # Errors
/// When there is no such task, or no log of it yet.
pub async fn print(
    farm: &Farm,
    id: i32,
    task: Option<&str>,
    follow: bool,
) -> Result<Exit, Failure> {
    let display = Display::new(false);
    let mut job = farm.job(id).await?;
    if let Some(name) = task {
        while follow && log_of(&job, name)?.is_none() && !job.ended() {
            sleep(BETWEEN_TRIES).await;
            job = farm.job(id).await?;
        }
        let log = log_of(&job, name)?;
        let log = log.ok_or_else(|| {
            Failure::usage(format!("the task {name} has no log yet: it has not run"))
        })?;
        show(
            farm,
            (id, LogId::Task(name.to_owned()), log),
            follow,
            &display,
        )
        .await?;
        return Ok(Exit::Success);
    }
    let Some(own) = &job.log else {
        return Err(Failure::usage(format!(
            "job {id} has no log yet: it is {}",
            job.status.to_lowercase()
        )));
    };
    show(farm, (id, LogId::Job, own), false, &display).await?;
    for task in &job.tasks {
        if let Some(log) = task.log.as_ref().filter(|_| task.status != "SKIPPED") {
            show(
                farm,
                (id, LogId::Task(task.name.clone()), log),
                false,
                &display,
            )
            .await?;
        }
    }
    Ok(Exit::Success)
}

fn log_of<'j>(job: &'j Job, name: &str) -> Result<Option<&'j Log>, Failure> {
    let task = job.tasks.iter().find(|task| task.name == name);
    let task = task.ok_or_else(|| {
        let names: Vec<&str> = job.tasks.iter().map(|task| task.name.as_str()).collect();
        Failure::usage(format!(
            "job {} has no task {name}; it has {}",
            job.id,
            names.join(", ")
        ))
    })?;
    Ok(task.log.as_ref())
}

/// Shows one log to its end; to where it ends now unless it is followed.
async fn show(
    farm: &Farm,
    (job, log, at): (i32, LogId, &Log),
    follow: bool,
    display: &Display,
) -> Result<(), Failure> {
    let (out, mut pieces) = mpsc::channel(1);
    let (tell, over) = watch::channel(!follow);
    let stream = Stream {
        farm: farm.clone(),
        url: at.full_url.clone(),
        log: log.clone(),
        over,
        out,
    };
    let watching = async {
        let (mut well, mut told) = (Instant::now(), false);
        loop {
            match farm.job(job).await {
                Ok(job) if is_over(&job, &log) => break,
                Ok(_) => (well, told) = (Instant::now(), false),
                Err(FarmError::Away(why)) if well.elapsed() < AWAY => {
                    if !std::mem::replace(&mut told, true) {
                        ui::note(&format!("{why}; waiting for it"));
                    }
                }
                Err(error) => return Err(error),
            }
            sleep(BETWEEN_TRIES).await;
        }
        tell.send_replace(true);
        std::future::pending::<Result<(), FarmError>>().await
    };
    let showing = async {
        while let Some((log, bytes)) = pieces.recv().await {
            display.append(Duration::ZERO, &log, &bytes).await;
        }
    };
    tokio::select! {
        (read, ()) = async { tokio::join!(stream.run(), showing) } => read?,
        failed = watching, if follow => failed?,
    }
    Ok(())
}

fn is_over(job: &Job, log: &LogId) -> bool {
    let task = job
        .tasks
        .iter()
        .find(|task| Some(task.name.as_str()) == log.task());
    let over = task.is_some_and(|task| !matches!(task.status.as_str(), "PENDING" | "RUNNING"));
    job.ended() || over
}
