//! A job's logs on their way from the guest to the reporter.
//!
//! Logs are bytes: nothing here looks for lines or text, and nothing is kept,
//! so a line of any length takes no memory. All bytes of a guest pass
//! [`Logs::take`], and only there may they ever be changed (masking of secrets
//! will be its next duty); today it only counts them.

use std::collections::HashMap;

use async_trait::async_trait;
use kiln_vm::machine::Sink;

use crate::{Limits, LogId, ReportError, Reporter};

/// Counts what each log has got and ends those that are full.
pub(crate) struct Logs<'a> {
    reporter: &'a dyn Reporter,
    limits: Limits,
    total: u64,
    logs: HashMap<LogId, State>,
    lost: Option<ReportError>,
}

#[derive(Default)]
struct State {
    taken: u64,
    full: bool,
    mid_line: bool,
}

impl<'a> Logs<'a> {
    pub(crate) fn new(reporter: &'a dyn Reporter, limits: Limits) -> Self {
        Self {
            reporter,
            limits,
            total: 0,
            logs: HashMap::new(),
            lost: None,
        }
    }

    /// Writes a line of kiln's own. No limit holds it back: they are few.
    pub(crate) async fn say(&mut self, log: &LogId, line: &str) -> Result<(), ReportError> {
        let line = self.line(log, line);
        self.reporter.say(log, line.as_bytes()).await
    }

    /// The same for a line that repeats an event.
    pub(crate) async fn narrate(&mut self, log: &LogId, line: &str) -> Result<(), ReportError> {
        let line = self.line(log, line);
        self.reporter.narrate(log, line.as_bytes()).await
    }

    fn line(&mut self, log: &LogId, line: &str) -> String {
        let state = self.logs.entry(log.clone()).or_default();
        let newline = if state.mid_line { "\n" } else { "" };
        state.mid_line = false;
        format!("{newline}[kiln] {line}\n")
    }

    /// The way into a log for a guest's output.
    pub(crate) fn sink(&mut self, log: &LogId) -> LogSink<'_, 'a> {
        LogSink {
            log: log.clone(),
            logs: self,
        }
    }

    /// The error behind a [`LogSink`]'s, which can only carry an I/O error.
    pub(crate) fn lost(&mut self) -> Option<ReportError> {
        self.lost.take()
    }

    /// Takes a guest's bytes: the one place between guest and reporter.
    async fn take(&mut self, log: &LogId, bytes: &[u8]) -> Result<(), ReportError> {
        let state = self.logs.entry(log.clone()).or_default();
        if state.full || bytes.is_empty() {
            return Ok(());
        }
        let left_here = self.limits.log.saturating_sub(state.taken);
        let left_in_all = self.limits.logs.saturating_sub(self.total);
        let left = left_here.min(left_in_all);
        let fits = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let kept = &bytes[..fits];
        state.taken += kept.len() as u64;
        self.total += kept.len() as u64;
        state.full = fits < bytes.len();
        let full = state.full;
        if let Some(&last) = kept.last() {
            state.mid_line = last != b'\n';
            self.reporter.append(log, kept).await?;
        }
        if full {
            let (whose, limit) = if left_here <= left_in_all {
                ("this log", self.limits.log)
            } else {
                ("all logs of this job together", self.limits.logs)
            };
            let limit = size(limit);
            let line = format!("the limit of {limit} for {whose} is reached: no more is kept");
            self.say(log, &line).await?;
        }
        Ok(())
    }
}

/// A guest's output on its way into one log.
pub(crate) struct LogSink<'l, 'a> {
    log: LogId,
    logs: &'l mut Logs<'a>,
}

#[async_trait]
impl Sink for LogSink<'_, '_> {
    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self.logs.take(&self.log, bytes).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.logs.lost = Some(error);
                Err(std::io::Error::other("the reporter took no more"))
            }
        }
    }
}

/// Room for any answer that is asked of the guest. No guest, and no job that
/// has replaced a program in it, can make the host remember more.
pub(crate) const ANSWER: usize = 256;

/// A number of bytes for people, exact where it is a whole number of a unit.
pub(crate) fn size(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift {
            let whole = bytes >> shift;
            let tenths = ((bytes & ((1 << shift) - 1)) * 10) >> shift;
            return if tenths == 0 {
                format!("{whole} {unit}")
            } else {
                format!("{whole}.{tenths} {unit}")
            };
        }
    }
    format!("{bytes} bytes")
}
