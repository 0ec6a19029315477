//! What a run leaves in its folder, also when the harness itself fails; and what is found
//! lying about when all is over.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use kiln_core::testing::history::{Entry, Event, History};
use kiln_store::{Store, testing::broken_rules};
use tokio::time::{Instant, sleep};

use super::{
    engines::Engines,
    kinds::Fault,
    record::{Record, now},
};

/// Copies the engines' logs when it is dropped, and writes down the history so far if that is
/// because of a panic.
pub struct Guard {
    folder: PathBuf,
    record: Record,
    logs: [(&'static str, PathBuf); 3],
}

impl Guard {
    pub fn new(folder: &Path, record: &Record, engines: &Engines) -> Self {
        Self {
            folder: folder.to_owned(),
            record: record.clone(),
            logs: engines.logs(),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        for (name, log) in &self.logs {
            let to = self.folder.join("logs").join(format!("{name}.log"));
            if let Err(error) = fs::copy(log, to) {
                println!("  there is no log of {name}: {error}");
            }
        }
        if std::thread::panicking() {
            let history = History::new(self.record.entries());
            let _ = fs::write(self.folder.join("history"), history.to_lines());
            println!("  history, schedule and logs: {}", self.folder.display());
        }
    }
}

/// The schedule, for people.
pub fn told(schedule: &[Fault]) -> String {
    let line = |fault: &Fault| {
        let (from, to) = (
            fault.at.as_secs_f32(),
            (fault.at + fault.length).as_secs_f32(),
        );
        format!(
            "{from:7.2} to {to:7.2}  {:?} {} {}\n",
            fault.kind, fault.place, fault.amount
        )
    };
    schedule.iter().map(line).collect()
}

fn left(what: String) -> Entry {
    let event = Event::Left { what };
    Entry { at: now(), event }
}

/// What in the database does not agree with itself.
pub async fn disagreements(store: &Store) -> Vec<Entry> {
    let broken = broken_rules(store).await.expect("a database");
    broken
        .into_iter()
        .map(|rule| left(format!("in the database: {rule}: it")))
        .collect()
}

/// Guests that run although no job does, for so long.
pub async fn guests_left(folder: &Path, patience: Duration) -> Vec<Entry> {
    let begun = Instant::now();
    loop {
        let guests = guests(folder);
        if guests.is_empty() || begun.elapsed() > patience {
            return guests;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

fn guests(folder: &Path) -> Vec<Entry> {
    let mark = format!("KILN_DUMMY={}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("a directory").flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let text = String::from_utf8_lossy(&environment);
        if text.split('\0').any(|variable| variable.starts_with(&mark)) {
            let number = entry.file_name();
            found.push(left(format!("process {} of a guest", number.display())));
        }
    }
    found
}

/// Processes of kiln that found themselves in a state that can't be.
pub fn panics(folder: &Path) -> Vec<Entry> {
    let mut found = Vec::new();
    let logs = fs::read_dir(folder.join("logs")).expect("a directory");
    for entry in logs.flatten() {
        let name = entry.file_name().display().to_string();
        if !name.starts_with("server-") && !name.starts_with("worker-") {
            continue;
        }
        let text = fs::read(entry.path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        for line in text.lines().filter(|line| line.contains("panicked at")) {
            found.push(left(format!("in {name}: {line}: it")));
        }
    }
    found
}
