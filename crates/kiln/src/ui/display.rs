//! A running job on standard output: for a terminal, a pipe, or a program.

use std::io::IsTerminal as _;

use kiln_worker::{Body, Event, LogId};
use tokio::{
    io::AsyncWriteExt,
    sync::Mutex,
    time::{Duration, interval},
};

use super::{clean::Cleaner, terminal::Screen};

/// How often a spinner turns.
const TURN: Duration = Duration::from_millis(100);

/// Who reads.
enum Reader {
    /// A person: steps with marks and times, the logs between them, a spinner.
    Terminal(Screen),
    /// A file or another program: the logs' bytes as they are.
    Pipe,
    /// A program that wants events.
    Json,
}

/// Shows a job.
pub struct Display {
    reader: Mutex<Reader>,
    out: Mutex<tokio::io::Stdout>,
}

impl Display {
    /// For whoever standard output belongs to.
    pub fn new(json: bool) -> Self {
        let reader = if json {
            Reader::Json
        } else if std::io::stdout().is_terminal() {
            Reader::Terminal(Screen::default())
        } else {
            Reader::Pipe
        };
        Self {
            reader: Mutex::new(reader),
            out: Mutex::new(tokio::io::stdout()),
        }
    }

    /// Shows an event.
    pub async fn event(&self, event: &Event) {
        let bytes = match &mut *self.reader.lock().await {
            Reader::Terminal(screen) => screen.event(event),
            Reader::Pipe => Vec::new(),
            Reader::Json => json(event),
        };
        self.write(&bytes).await;
    }

    /// Shows what a log has grown by.
    pub async fn append(&self, at: Duration, log: &LogId, bytes: &[u8]) {
        let bytes = match &mut *self.reader.lock().await {
            Reader::Terminal(screen) => screen.append(log, bytes),
            Reader::Pipe => bytes.to_vec(),
            Reader::Json => json(&Event::new(at, Body::log(log, bytes))),
        };
        self.write(&bytes).await;
    }

    /// Shows a line that repeats an event, to whoever does not see that.
    pub async fn narrate(&self, at: Duration, log: &LogId, line: &[u8]) {
        let bytes = match &mut *self.reader.lock().await {
            Reader::Terminal(_) => Vec::new(),
            // The job's log has what a task's has.
            Reader::Pipe if log.task().is_some() => Vec::new(),
            Reader::Pipe => line.to_vec(),
            Reader::Json => json(&Event::new(at, Body::log(log, line))),
        };
        self.write(&bytes).await;
    }

    /// Turns the spinner, for ever, where there is one.
    pub async fn spin(&self) {
        let mut turns = interval(TURN);
        loop {
            turns.tick().await;
            let bytes = match &mut *self.reader.lock().await {
                Reader::Terminal(screen) => screen.turn(),
                _ => return,
            };
            self.write(&bytes).await;
        }
    }

    /// Leaves the terminal to somebody else.
    pub async fn pause(&self) {
        let bytes = match &mut *self.reader.lock().await {
            Reader::Terminal(screen) => screen.pause(),
            _ => return,
        };
        self.write(&bytes).await;
    }

    /// A reader that has gone away does not end the job.
    async fn write(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let mut out = self.out.lock().await;
            let _ = out.write_all(bytes).await;
            let _ = out.flush().await;
        }
    }
}

fn json(event: &Event) -> Vec<u8> {
    // Our own types of numbers and texts: they all have a JSON form.
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line
}

/// A cleaner for each log: each is a stream of its own.
#[derive(Default)]
pub(super) struct Cleaners(std::collections::HashMap<LogId, Cleaner>);

impl Cleaners {
    pub fn clean(&mut self, log: &LogId, bytes: &[u8]) -> Vec<u8> {
        self.0.entry(log.clone()).or_default().clean(bytes)
    }
}
