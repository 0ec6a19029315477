//! A manifest in, everything that could be seen of its job out.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use kiln_core::{
    job::TaskStatus,
    manifest::{self, EnvName},
};
use kiln_vm::{
    dummy::{Call, Dummy},
    machine::{Exec, Guest},
};
use kiln_worker::{
    Body, Event, Hold, Job, Limits, LogId, Outcome, ReportError, Reporter, Secret, SecretKind, run,
};
use tempfile::TempDir;
use tokio::sync::watch;

/// A job about to run.
pub struct Build {
    pub job: Job,
    pub machine: Dummy,
    pub folder: TempDir,
    when: When,
    keep_bytes: bool,
}

/// What happens when the job tells something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Nothing,
    /// The task of this name runs: cancel the job.
    CancelAt(&'static str),
    /// Something is appended to this task's log: no space left.
    FullAt(&'static str),
    /// The guest is held: the hold has no end of its own.
    HoldForever,
    /// The first task is about to start: the lease is lost.
    RefusedAtBegun,
}

impl Build {
    /// A job of this manifest; its image is added.
    pub fn of(manifest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let guest_dir = folder.path().join("guest");
        let artifacts_dir = folder.path().join("artifacts");
        fs::create_dir_all(guest_dir.join("home")).unwrap();
        fs::create_dir(&artifacts_dir).unwrap();
        let text = format!("image: dummy\n{manifest}");
        let manifest = manifest::parse(text.as_bytes())
            .unwrap_or_else(|refused| panic!("{refused}\n{text}"))
            .manifest;
        Self {
            job: Job {
                manifest,
                id: 7,
                url: "https://kiln.example/jobs/7".into(),
                environment: Vec::new(),
                secrets: Vec::new(),
                overlays: Vec::new(),
                artifacts_dir,
                deadline: Duration::from_secs(60),
                limits: Limits::default(),
                guest: Dummy::spec(guest_dir),
            },
            machine: Dummy::default(),
            folder,
            when: When::Nothing,
            keep_bytes: true,
        }
    }

    /// A job with one task, `build`.
    pub fn script(script: &str) -> Self {
        let script = script.trim().replace('\n', "\n    ");
        Self::of(&format!("tasks:\n- build: |\n    {script}\n"))
    }

    pub fn on(mut self, machine: Dummy) -> Self {
        self.machine = machine;
        self
    }

    pub fn vanishing_at(mut self, fault: impl Fn(&Call) -> bool + Send + Sync + 'static) -> Self {
        self.machine = self.machine.vanishing_at(fault);
        self
    }

    pub fn with_word(mut self, word: &str, script: &str) -> Self {
        self.machine = self.machine.with_word(word, script);
        self
    }

    pub fn with_secret(mut self, reference: &str, uuid: &str, kind: SecretKind) -> Self {
        self.job.secrets.push(Secret {
            reference: reference.into(),
            uuid: uuid.into(),
            kind,
        });
        self
    }

    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        let name = EnvName::parse(name).unwrap();
        self.job.environment.push((name, value.into()));
        self
    }

    pub fn within(mut self, deadline: Duration) -> Self {
        self.job.deadline = deadline;
        self
    }

    pub fn limited(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.job.limits);
        self
    }

    pub fn cancelled_at(mut self, task: &'static str) -> Self {
        self.when = When::CancelAt(task);
        self
    }

    pub fn reporter_full_at(mut self, task: &'static str) -> Self {
        self.when = When::FullAt(task);
        self
    }

    pub fn refused_at_begun(mut self) -> Self {
        self.when = When::RefusedAtBegun;
        self
    }

    /// The hold touches `held` in the guest and has no end of its own.
    pub fn held_for_ever(mut self) -> Self {
        self.when = When::HoldForever;
        self
    }

    pub fn only_counting(mut self) -> Self {
        self.keep_bytes = false;
        self
    }

    /// Where the guest's home is on this host.
    pub fn home(&self) -> PathBuf {
        self.job.guest.dir.join("home")
    }

    pub async fn run(self) -> Ran {
        let (cancel, cancelled) = watch::channel(false);
        let seen = Arc::new(Seen {
            when: self.when,
            keep_bytes: self.keep_bytes,
            cancel,
            state: Mutex::default(),
        });
        let outcome = run(
            &self.machine,
            &self.job,
            seen.as_ref(),
            seen.as_ref(),
            cancelled,
        )
        .await;
        let state = std::mem::take(&mut *seen.state.lock().unwrap());
        Ran {
            outcome,
            state,
            calls: self.machine.calls(),
            build: self,
        }
    }
}

/// A job that has run.
pub struct Ran {
    pub outcome: Outcome,
    pub state: State,
    pub calls: Vec<Call>,
    pub build: Build,
}

impl Ran {
    pub fn reason(&self) -> &str {
        self.outcome.reason.as_deref().unwrap_or_default()
    }

    /// The job's own log.
    pub fn log(&self) -> String {
        let bytes = self.state.logs.get(&LogId::Job);
        String::from_utf8(bytes.cloned().unwrap_or_default()).unwrap()
    }

    /// What a task wrote: its log without the first line.
    pub fn output(&self, task: &str) -> Vec<u8> {
        let log = &self.state.logs[&LogId::Task(task.into())];
        let first = format!("[kiln] task {task}\n");
        assert!(log.starts_with(first.as_bytes()), "no first line");
        log[first.len()..].to_vec()
    }

    pub fn text(&self, task: &str) -> String {
        String::from_utf8_lossy(&self.output(task)).into_owned()
    }

    /// `first=success second=skipped`.
    pub fn tasks(&self) -> String {
        let tasks = self.outcome.tasks.iter();
        let tasks: Vec<String> = tasks
            .map(|(name, status)| format!("{name}={status}"))
            .collect();
        tasks.join(" ")
    }

    /// The statuses that were told of a task.
    pub fn told(&self, name: &str) -> Vec<TaskStatus> {
        let bodies = self.state.events.iter().map(|event| &event.body);
        bodies
            .filter_map(|body| match body {
                Body::Task { task, status, .. } if task == name => Some(*status),
                _ => None,
            })
            .collect()
    }

    pub fn json(&self) -> Vec<serde_json::Value> {
        let events = self.state.events.iter();
        events.map(|e| serde_json::to_value(e).unwrap()).collect()
    }

    pub fn artifact(&self, file: &str) -> Vec<u8> {
        fs::read(self.build.job.artifacts_dir.join(file)).unwrap()
    }

    /// The names in the directory for artifacts, hidden ones included.
    pub fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.build.job.artifacts_dir).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<String> = entries.map(|e| name(e).into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Everything that the owner of the job can read.
    pub fn all_text(&self) -> String {
        let logs = self.state.logs.values();
        let logs: Vec<String> = logs
            .map(|l| String::from_utf8_lossy(l).into_owned())
            .collect();
        let events: Vec<String> = self.json().iter().map(ToString::to_string).collect();
        format!(
            "{}\n{}\n{}",
            logs.join("\n"),
            events.join("\n"),
            self.reason()
        )
    }
}

/// What was told of a job.
#[derive(Default)]
pub struct State {
    pub events: Vec<Event>,
    pub logs: HashMap<LogId, Vec<u8>>,
    pub lengths: HashMap<LogId, u64>,
    pub longest: usize,
    /// `begun`, tasks' statuses and `held`, in order.
    pub journal: Vec<String>,
}

struct Seen {
    when: When,
    keep_bytes: bool,
    cancel: watch::Sender<bool>,
    state: Mutex<State>,
}

#[async_trait]
impl Reporter for Seen {
    async fn event(&self, event: Event) -> Result<(), ReportError> {
        let mut state = self.state.lock().unwrap();
        if let Body::Task { task, status, .. } = &event.body {
            state.journal.push(format!("{task} {status}"));
            let runs = *status == TaskStatus::Running;
            if runs && matches!(self.when, When::CancelAt(name) if name == task) {
                self.cancel.send_replace(true);
            }
        }
        state.events.push(event);
        Ok(())
    }

    async fn append(&self, log: &LogId, bytes: &[u8]) -> Result<(), ReportError> {
        assert!(!bytes.is_empty());
        if let (When::FullAt(task), Some(name)) = (self.when, log.task())
            && task == name
            && !bytes.starts_with(b"[kiln]")
        {
            return Err(ReportError::Io(std::io::ErrorKind::StorageFull.into()));
        }
        let mut state = self.state.lock().unwrap();
        *state.lengths.entry(log.clone()).or_default() += bytes.len() as u64;
        state.longest = state.longest.max(bytes.len());
        if self.keep_bytes {
            state.logs.entry(log.clone()).or_default().extend(bytes);
        }
        Ok(())
    }

    async fn begun(&self) -> Result<(), ReportError> {
        self.state.lock().unwrap().journal.push("begun".into());
        match self.when {
            When::RefusedAtBegun => Err(ReportError::Refused),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Hold for Seen {
    async fn hold(&self, guest: &dyn Guest, outcome: &Outcome) {
        let held = format!("held {}", outcome.status);
        self.state.lock().unwrap().journal.push(held);
        if self.when == When::HoldForever {
            let _ = guest.exec(Exec::new("touch held"), &mut Vec::new()).await;
            std::future::pending::<()>().await;
        }
    }
}
