//! A job's events and logs on their way from the spool to the server, one after
//! the other, each until it is stored.
//!
//! A few lines of the job's own log let events pass that wait behind them, for the sake of one
//! append instead of several. No event says that this log ended: the job's end does, which comes
//! when all is uploaded. Nothing else changes places.

use std::{collections::HashMap, convert::Infallible, io, mem, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Method;
use kiln_wire::report::{Event, Stored};
use tokio::time::{Instant, sleep_until};

use super::{
    lease::{Answer, Lease, query},
    live::JobLive,
    spool::{Item, Spool},
};
use crate::LogId;

/// So many bytes of the job's log let events pass.
const FEW: usize = 4096;

/// What is uploaded how far.
pub(super) struct Uploader {
    lease: Arc<Lease>,
    spool: Arc<Spool>,
    /// Where each log ends at the server.
    ends: HashMap<LogId, u64>,
    /// The end of the job's log, which lets events pass.
    late: Vec<u8>,
}

/// What became of bytes, and where their log ends now.
enum Put {
    /// They are there, though some may have come with another try.
    Taken(u64),
    /// Something else is where they were to be: they come behind it.
    Elsewhere(u64),
}

/// Why nothing more is uploaded.
enum End {
    /// The lease is lost.
    Lost,
    /// What is here can't be read, or what is there can't be ours.
    Failed(String),
}

impl Uploader {
    /// That of a job whose own log ends there, if that is known.
    pub fn new(lease: Arc<Lease>, spool: Arc<Spool>, log_end: Option<u64>) -> Self {
        Self {
            lease,
            spool,
            ends: log_end.map(|end| (LogId::Job, end)).into_iter().collect(),
            late: Vec::new(),
        }
    }

    /// Uploads until all is stored and no more comes, or the lease is lost. What is not
    /// stored yet goes the live way meanwhile.
    ///
    /// # Errors
    /// A sentence for the job's owner when some of it can't be stored.
    pub async fn run(mut self, mut live: JobLive) -> Result<(), String> {
        let ended = self.all(&mut live).await;
        self.spool.break_off();
        match ended {
            Ok(()) | Err(End::Lost) => Ok(()),
            Err(End::Failed(operator)) => {
                let job = self.lease.job.0;
                tracing::error!(job, operator, "the log of job {job} is lost: {operator}");
                self.lease.stop();
                Err("the job's log could not be stored".to_owned())
            }
        }
    }

    async fn all(&mut self, live: &mut JobLive) -> Result<(), End> {
        let failed = |error: std::io::Error| End::Failed(error.to_string());
        let spool = Arc::clone(&self.spool);
        // What says why a job was stopped may be all that there is time for.
        let stopped = self.lease.cancelled();
        while let Some(item) = self.spool.front().await.map_err(failed)? {
            match item {
                Item::Event(json) => self.event(json).await?,
                Item::Log(log, bytes) => {
                    if log != LogId::Job || self.late.len() + bytes.len() > FEW {
                        self.rest().await?;
                    }
                    let at = self.end(&log).await?;
                    let bytes = match mem::take(&mut self.late) {
                        late if late.is_empty() => bytes,
                        late => [late.into(), bytes].concat().into(),
                    };
                    let bytes = self.gathered(live, &log, at, bytes).await.map_err(failed)?;
                    let few = log == LogId::Job && bytes.len() <= FEW;
                    if few && self.spool.has_more() && !*stopped.borrow() {
                        self.late = bytes.into();
                    } else {
                        let shown = show_on(&spool, live, (&log, at, bytes.clone()));
                        tokio::select! {
                            stored = self.log(&log, at, bytes) => stored?,
                            never = shown => match never.map_err(failed)? {},
                        }
                    }
                }
            }
            self.spool.pop();
            if !self.spool.has_more() {
                self.rest().await?;
            }
        }
        Ok(())
    }

    /// Appends what let events pass.
    async fn rest(&mut self) -> Result<(), End> {
        let late = Bytes::from(mem::take(&mut self.late));
        if late.is_empty() {
            return Ok(());
        }
        let at = self.end(&LogId::Job).await?;
        self.log(&LogId::Job, at, late).await
    }

    async fn event(&mut self, json: Bytes) -> Result<(), End> {
        match self.lease.post("event", json.clone()).await {
            Answer::Taken(answer) => {
                if let Ok(Event::Task { task, .. }) = serde_json::from_slice(&json)
                    && let Ok(Stored { stored }) = serde_json::from_slice(&answer)
                {
                    self.ends.insert(LogId::Task(task), stored);
                }
                Ok(())
            }
            Answer::Lost => Err(End::Lost),
            Answer::Offset(_) => Err(End::Failed("an event has no offset".to_owned())),
            Answer::Refused(refusal) => {
                // The job's end says all that matters once more.
                let job = self.lease.job.0;
                tracing::warn!(job, "an event of job {job} is refused: {}", refusal.message);
                Ok(())
            }
        }
    }

    /// Where a log ends at the server.
    async fn end(&mut self, log: &LogId) -> Result<u64, End> {
        match self.ends.get(log) {
            Some(end) => Ok(*end),
            None => {
                let (Put::Taken(end) | Put::Elsewhere(end)) =
                    self.put(log, 0, &Bytes::new()).await?;
                self.ends.insert(log.clone(), end);
                Ok(end)
            }
        }
    }

    /// What comes for this append for as long as the server wants appends to be gathered:
    /// not longer than something else waits behind it. Meanwhile those who read the log as
    /// it grows are shown what there is of it.
    async fn gathered(
        &self,
        live: &mut JobLive,
        log: &LogId,
        at: u64,
        bytes: Bytes,
    ) -> io::Result<Bytes> {
        let Some(gather) = live.gather() else {
            return Ok(bytes);
        };
        let until = Instant::now() + Duration::from_millis(gather.milliseconds);
        let mut bytes = Vec::from(bytes);
        while (bytes.len() as u64) < gather.bytes {
            let all = live.send(log, at, &bytes);
            let turn = live
                .turn()
                .filter(|_| !all)
                .map_or(until, Instant::from_std);
            tokio::select! {
                () = sleep_until(until) => break,
                () = sleep_until(turn.min(until)), if !all => {}
                more = self.spool.more(&mut bytes) => if !more? {
                    break;
                },
            }
        }
        live.send(log, at, &bytes);
        Ok(bytes.into())
    }

    async fn log(&mut self, log: &LogId, mut at: u64, mut bytes: Bytes) -> Result<(), End> {
        while !bytes.is_empty() {
            let put = self.put(log, at, &bytes).await?;
            let (Put::Taken(end) | Put::Elsewhere(end)) = put;
            let grown = end.checked_sub(at).filter(|grown| *grown > 0);
            let Some(grown) = grown else {
                return Err(End::Failed(format!(
                    "the server had {at} bytes of {log} and has {end}"
                )));
            };
            if let Put::Taken(_) = put {
                let taken = usize::try_from(grown).unwrap_or(usize::MAX);
                // The server may have said something itself behind what it took.
                let _ = bytes.split_to(taken.min(bytes.len()));
            }
            at = end;
        }
        self.ends.insert(log.clone(), at);
        Ok(())
    }

    /// Appends at this place. No bytes at all ask only where the log ends, and change nothing
    /// however often they are sent.
    async fn put(&self, log: &LogId, at: u64, bytes: &Bytes) -> Result<Put, End> {
        let at = at.to_string();
        let mut pairs = vec![("offset", at.as_str())];
        pairs.extend(log.task().map(|task| ("task", task)));
        let what = format!("log{}", query(&pairs));
        let bytes_type = Some("application/octet-stream");
        let answer = self.lease.report(Method::PUT, &what, bytes_type, bytes);
        match answer.await {
            Answer::Taken(body) => match serde_json::from_slice::<Stored>(&body) {
                Ok(Stored { stored }) => Ok(Put::Taken(stored)),
                Err(error) => Err(End::Failed(format!("an answer makes no sense: {error}"))),
            },
            Answer::Offset(stored) => Ok(Put::Elsewhere(stored)),
            Answer::Lost => Err(End::Lost),
            Answer::Refused(refusal) => Err(End::Failed(refusal.message)),
        }
    }
}

/// While an append of these bytes of a log is on its way, however long that takes: shows those
/// who read the log as it grows what of it and of what comes behind it they were not shown.
async fn show_on(
    spool: &Spool,
    live: &mut JobLive,
    (log, at, bytes): (&LogId, u64, Bytes),
) -> io::Result<Infallible> {
    let end = at + bytes.len() as u64;
    let mut behind = Vec::new();
    let mut more = true;
    while live.gather().is_some() {
        let all = live.send(log, at, &bytes) && live.send(log, end, &behind);
        let turn = live.turn().map_or_else(Instant::now, Instant::from_std);
        tokio::select! {
            () = sleep_until(turn), if !all => {}
            came = spool.beyond(&mut behind), if more => more = came?,
            else => break,
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use kiln_core::farm::{JobId, SessionId};
    use kiln_wire::{
        client::{Client, Options},
        testing::Server,
    };

    use super::*;
    use crate::farm::{live::Lives, spool::Voice};

    #[tokio::test]
    async fn a_few_lines_of_the_job_let_events_pass_and_no_other_log_does() {
        let server = Server::start();
        let fence = server.offer(1, "image: debian/stable\n");
        let client = Client::new(&server.target(), &Options::default()).unwrap();
        let session = SessionId::new([1; 16]);
        let lease = Lease::new(client, session, fence, JobId(1));
        let spool = Spool::new(tempfile::tempfile().unwrap(), 1 << 20).unwrap();
        let say = async |log: LogId, text: &str| {
            let said = spool.append(&log, text.as_bytes(), Voice::Kiln).await;
            said.unwrap();
        };
        let build = || LogId::Task("build".to_owned());
        let status = async |status: &str| {
            let event = format!(r#"{{"event":"task","task":"build","status":"{status}"}}"#);
            spool.event(event.as_bytes()).await.unwrap();
        };
        say(LogId::Job, "one\n").await;
        status("running").await;
        say(LogId::Job, "two\n").await;
        say(build(), "three\n").await;
        say(LogId::Job, "four\n").await;
        status("success").await;
        say(LogId::Job, "five\n").await;
        say(LogId::Job, &"six\n".repeat(FEW / 4)).await;
        spool.close();
        let live = Lives::new().of_job(fence);
        let uploader = Uploader::new(Arc::new(lease), Arc::new(spool), None);
        uploader.run(live).await.unwrap();
        assert_eq!(
            server.said(fence),
            [
                "task build running",
                "log job",
                "log build",
                "task build success",
                "log job",
                "log job",
            ]
        );
        let log = server.log(fence, None);
        let words = log.split_once('\n').unwrap().1;
        let six = "six\n".repeat(FEW / 4);
        assert_eq!(words, format!("one\ntwo\nfour\nfive\n{six}"));
        assert!(server.log(fence, Some("build")).ends_with("line\nthree\n"));
    }
}
