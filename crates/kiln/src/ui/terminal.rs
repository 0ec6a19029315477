//! A running job on a terminal.
//!
//! ```text
//! ✔ start  14.2 s
//! ✔ packages  6.1 s
//! + make check
//! ok
//! ✔ task test  0.8 s
//! ⠹ task install  2 s        ← the last line, redrawn
//! ```

use std::time::{Duration, Instant};

use kiln_core::job::{JobStatus, TaskStatus};
use kiln_worker::{Body, Event, LogId};

use super::{clean, display::Cleaners};

const SPINNER: &[char] = &['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
/// To the line's beginning, and clear it.
const CLEAR: &str = "\r\x1b[2K";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// What is drawn.
#[derive(Default)]
pub(super) struct Screen {
    /// What goes on now, and since when.
    current: Option<(String, Instant)>,
    turn: usize,
    spinner_shown: bool,
    cleaners: Cleaners,
    /// Whether the last log byte ended its line.
    mid_line: bool,
}

impl Screen {
    pub fn event(&mut self, event: &Event) -> Vec<u8> {
        match &event.body {
            Body::StepStarted { step } => self.begin(step.name().to_owned()),
            Body::StepEnded { step, ok, duration } => {
                self.end(*ok, step.name(), Some(duration.as_secs_f64()))
            }
            Body::Task {
                task,
                status,
                duration,
                ..
            } => self.task(task, *status, *duration),
            Body::Source {
                directory, commit, ..
            } => {
                let commit: String = commit.chars().take(12).collect();
                self.line(&format!(
                    "{DIM}  {} at {commit}{PLAIN}",
                    clean::text(directory)
                ))
            }
            Body::Artifact(artifact) => self.line(&format!(
                "{GREEN}✔{PLAIN} artifact {}  {DIM}{} bytes{PLAIN}",
                clean::text(&artifact.file),
                artifact.size
            )),
            Body::Warning { message } => {
                self.line(&format!("{YELLOW}!{PLAIN} {}", clean::text(message)))
            }
            Body::JobEnded {
                status,
                reason,
                duration,
                ..
            } => self.ended(*status, reason.as_deref(), duration.as_secs_f64()),
            Body::JobStarted { .. } | Body::Log { .. } => Vec::new(),
        }
    }

    pub fn append(&mut self, log: &LogId, bytes: &[u8]) -> Vec<u8> {
        let mut out = self.hide();
        let clean = self.cleaners.clean(log, bytes);
        if let Some(last) = clean.last() {
            self.mid_line = *last != b'\n';
        }
        out.extend(clean);
        out
    }

    pub fn turn(&mut self) -> Vec<u8> {
        let Some((name, since)) = &self.current else {
            return Vec::new();
        };
        if self.mid_line {
            return Vec::new();
        }
        self.turn = (self.turn + 1) % SPINNER.len();
        self.spinner_shown = true;
        let mark = SPINNER.get(self.turn).copied().unwrap_or('.');
        let seconds = since.elapsed().as_secs();
        format!("{CLEAR}{mark} {name}  {DIM}{seconds} s{PLAIN}").into_bytes()
    }

    pub fn pause(&mut self) -> Vec<u8> {
        self.current = None;
        self.hide()
    }

    fn task(&mut self, task: &str, status: TaskStatus, took: Option<Duration>) -> Vec<u8> {
        let name = format!("task {task}");
        let took = took.map(|took| took.as_secs_f64());
        match status {
            TaskStatus::Running => self.begin(name),
            TaskStatus::Success => self.end(true, &name, took),
            TaskStatus::Failed => self.end(false, &name, took),
            TaskStatus::Skipped => self.line(&format!("{DIM}– {name}  skipped{PLAIN}")),
            TaskStatus::Pending => Vec::new(),
        }
    }

    fn begin(&mut self, name: String) -> Vec<u8> {
        self.current = Some((name, Instant::now()));
        Vec::new()
    }

    fn end(&mut self, ok: bool, name: &str, took: Option<f64>) -> Vec<u8> {
        self.current = None;
        let mark = if ok {
            format!("{GREEN}✔{PLAIN}")
        } else {
            format!("{RED}✘{PLAIN}")
        };
        let took = took.map(|took| format!("  {DIM}{took:.1} s{PLAIN}"));
        self.line(&format!("{mark} {name}{}", took.unwrap_or_default()))
    }

    fn ended(&mut self, status: JobStatus, reason: Option<&str>, took: f64) -> Vec<u8> {
        self.current = None;
        let color = if status == JobStatus::Success {
            GREEN
        } else {
            RED
        };
        let reason = reason.map(|reason| format!(": {}", clean::text(reason)));
        let reason = reason.unwrap_or_default();
        self.line(&format!(
            "{color}{status}{PLAIN}{reason}  {DIM}{took:.1} s{PLAIN}"
        ))
    }

    fn line(&mut self, text: &str) -> Vec<u8> {
        let mut out = self.hide();
        if std::mem::take(&mut self.mid_line) {
            out.push(b'\n');
        }
        out.extend(text.bytes());
        out.push(b'\n');
        out
    }

    fn hide(&mut self) -> Vec<u8> {
        if std::mem::take(&mut self.spinner_shown) {
            CLEAR.into()
        } else {
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_is_shown_even_when_it_looks_like_ours() {
        let mut screen = Screen::default();
        for log in [LogId::Job, LogId::Task("build".into())] {
            let said = b"[kiln] task build: success\n";
            assert_eq!(screen.append(&log, said), said);
        }
    }
}
