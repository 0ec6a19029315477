//! Where a job is: its status, its tasks', the step that is open; and how that
//! is told, as events and in the job's logs.

use std::time::{Duration, Instant};

use kiln_core::{
    job::{IllegalTransition, JobStatus, TaskStatus},
    manifest::TaskName,
};
use kiln_vm::machine::GuestError;
use tokio::time::timeout;

use crate::{
    Artifact, Body, Cause, Event, Job, LogId, Outcome, ReportError, Reporter, Step, log::Logs,
    outcome::Failure,
};

/// How long a reporter may take to hear of a job's end. One that hangs must not
/// keep a guest alive.
const LAST_WORDS: Duration = Duration::from_secs(60);

/// The state of one job. All its changes are made here.
pub(crate) struct Progress<'a> {
    pub(crate) logs: Logs<'a>,
    reporter: &'a dyn Reporter,
    started: Instant,
    status: JobStatus,
    tasks: Vec<TaskState>,
    step: Option<(Step, Instant)>,
    artifacts: Vec<Artifact>,
}

struct TaskState {
    name: TaskName,
    status: TaskStatus,
    started: Option<Instant>,
    exit: Option<u32>,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(job: &Job, reporter: &'a dyn Reporter) -> Self {
        let tasks = job.manifest.tasks().iter().map(|task| TaskState {
            name: task.name.clone(),
            status: TaskStatus::Pending,
            started: None,
            exit: None,
        });
        Self {
            logs: Logs::new(reporter, job.limits),
            reporter,
            started: Instant::now(),
            // Whoever runs a job has taken it from a queue, if only its own.
            status: JobStatus::Queued,
            tasks: tasks.collect(),
            step: None,
            artifacts: Vec::new(),
        }
    }

    /// The job is running.
    pub(crate) async fn job_begins(&mut self, job: &Job) -> Result<(), Failure> {
        self.status = self.status.transition(JobStatus::Running)?;
        let image = job.manifest.image.to_string();
        let line = format!("job {} on {image}", job.id);
        self.logs.narrate(&LogId::Job, &line).await?;
        let tasks = self.tasks.iter().map(|task| task.name.to_string());
        self.tell(Body::JobStarted {
            job: job.id,
            image,
            tasks: tasks.collect(),
            deadline: job.deadline,
        })
        .await
    }

    /// Tells of an event.
    pub(crate) async fn tell(&self, body: Body) -> Result<(), Failure> {
        let event = Event::new(self.started.elapsed(), body);
        Ok(self.reporter.event(event).await?)
    }

    /// Tells the owner something that is no failure.
    pub(crate) async fn warn(&mut self, message: &str) -> Result<(), Failure> {
        let line = format!("warning: {message}");
        self.logs.narrate(&LogId::Job, &line).await?;
        let message = message.to_owned();
        self.tell(Body::Warning { message }).await
    }

    /// Tells the owner in the job's log.
    pub(crate) async fn say(&mut self, line: &str) -> Result<(), Failure> {
        Ok(self.logs.narrate(&LogId::Job, line).await?)
    }

    /// A step begins, with these things to do.
    pub(crate) async fn step_begins(&mut self, step: Step, what: &str) -> Result<(), Failure> {
        self.step = Some((step, Instant::now()));
        let line = format!("{}: {what}", step.name());
        self.logs.narrate(&LogId::Job, &line).await?;
        self.tell(Body::StepStarted { step }).await
    }

    /// The open step has succeeded.
    pub(crate) async fn step_ends(&mut self) -> Result<(), Failure> {
        let Some((step, started)) = self.step.take() else {
            return Ok(());
        };
        let took = seconds(started.elapsed());
        let line = format!("{}: done in {took}", step.name());
        self.logs.narrate(&LogId::Job, &line).await?;
        self.tell_step_ended(step, started, true).await
    }

    async fn tell_step_ended(&self, step: Step, started: Instant, ok: bool) -> Result<(), Failure> {
        let duration = started.elapsed();
        self.tell(Body::StepEnded { step, ok, duration }).await
    }

    /// The first task may start when this has succeeded.
    pub(crate) async fn begun(&self) -> Result<(), Failure> {
        Ok(self.reporter.begun().await?)
    }

    /// The task runs.
    pub(crate) async fn task_begins(&mut self, index: usize) -> Result<(), Failure> {
        let Some(task) = self.tasks.get_mut(index) else {
            return Ok(());
        };
        task.status = task.status.transition(TaskStatus::Running)?;
        task.started = Some(Instant::now());
        let line = format!("task {}", task.name);
        let log = LogId::Task(task.name.to_string());
        self.logs.narrate(&LogId::Job, &line).await?;
        self.logs.narrate(&log, &line).await?;
        self.tell_task(index).await
    }

    /// The task's script has ended.
    pub(crate) async fn task_ends(
        &mut self,
        index: usize,
        exit: u32,
        to: TaskStatus,
    ) -> Result<(), Failure> {
        let Some(task) = self.tasks.get_mut(index) else {
            return Ok(());
        };
        task.status = task.status.transition(to)?;
        task.exit = Some(exit);
        let took = task.started.map(|started| started.elapsed());
        let took = seconds(took.unwrap_or_default());
        let line = format!("task {}: {to} (exit {exit}) after {took}", task.name);
        self.logs.narrate(&LogId::Job, &line).await?;
        self.tell_task(index).await
    }

    /// No further task runs.
    pub(crate) async fn skip_rest(&mut self) -> Result<(), Failure> {
        for index in 0..self.tasks.len() {
            if self.tasks[index].status == TaskStatus::Pending {
                self.tasks[index].status = TaskStatus::Pending.transition(TaskStatus::Skipped)?;
                self.tell_task(index).await?;
            }
        }
        Ok(())
    }

    async fn tell_task(&self, index: usize) -> Result<(), Failure> {
        let Some(task) = self.tasks.get(index) else {
            return Ok(());
        };
        let started = task.started.filter(|_| task.status.is_terminal());
        self.tell(Body::Task {
            task: task.name.to_string(),
            status: task.status,
            exit: task.exit,
            duration: started.map(|started| started.elapsed()),
        })
        .await
    }

    /// An artifact was kept.
    pub(crate) async fn kept(&mut self, artifact: Artifact) -> Result<(), Failure> {
        self.artifacts.push(artifact.clone());
        self.tell(Body::Artifact(artifact)).await
    }

    /// The job ends here: moves everything to its terminal status and tells it.
    pub(crate) async fn finish(&mut self, ended: Result<Option<String>, Failure>) -> Outcome {
        let ended = ended.map_err(|failure| self.without_sink(failure));
        let (status, cause, reason, operator) = match &ended {
            Ok(early) => (JobStatus::Success, Cause::Finished, early.clone(), None),
            Err(failure) => (
                failure.status(),
                failure.cause(),
                Some(failure.reason()),
                failure.operator(),
            ),
        };
        let (status, moved) = self.settle(status);
        let mut outcome = Outcome {
            status,
            cause,
            reason,
            operator,
            tasks: Vec::new(),
            artifacts: std::mem::take(&mut self.artifacts),
        };
        let told = timeout(LAST_WORDS, self.tell_end(&outcome, moved)).await;
        let told = told.unwrap_or_else(|slow| {
            let error = std::io::Error::new(std::io::ErrorKind::TimedOut, slow);
            Err(ReportError::Io(error).into())
        });
        if let (Err(failure), Ok(_)) = (told, &ended) {
            outcome.status = failure.status();
            outcome.cause = failure.cause();
            outcome.reason = Some(failure.reason());
            outcome.operator = failure.operator();
        }
        let tasks = self.tasks.iter();
        outcome.tasks = tasks.map(|t| (t.name.to_string(), t.status)).collect();
        outcome
    }

    /// Puts the reporter's own error in the place of the sink's.
    fn without_sink(&mut self, failure: Failure) -> Failure {
        match failure {
            Failure::Guest {
                error: GuestError::Output(error),
                ..
            } => Failure::Report(self.logs.lost().unwrap_or(ReportError::Io(error))),
            other => other,
        }
    }

    /// Moves job and tasks to terminal statuses; gives the tasks that moved.
    fn settle(&mut self, status: JobStatus) -> (JobStatus, Vec<usize>) {
        let mut moved = Vec::new();
        for (index, task) in self.tasks.iter_mut().enumerate() {
            let to = match task.status {
                TaskStatus::Running => TaskStatus::Failed,
                _ => TaskStatus::Skipped,
            };
            if let Ok(to) = task.status.transition(to) {
                task.status = to;
                moved.push(index);
            }
        }
        // A job that could not even be told to be running has failed in the queue.
        let reached = self.status.transition(status);
        self.status = reached.unwrap_or(JobStatus::Failed);
        (self.status, moved)
    }

    async fn tell_end(&mut self, outcome: &Outcome, moved: Vec<usize>) -> Result<(), Failure> {
        let reason = outcome.reason.clone();
        for index in moved {
            if let (TaskStatus::Failed, Some(reason)) = (self.tasks[index].status, &reason) {
                let log = LogId::Task(self.tasks[index].name.to_string());
                self.logs.say(&log, reason).await?;
            }
            self.tell_task(index).await?;
        }
        if let Some((step, started)) = self.step.take() {
            self.tell_step_ended(step, started, false).await?;
        }
        let duration = self.started.elapsed();
        let why = reason.as_deref().map(|reason| format!(": {reason}"));
        let why = why.unwrap_or_default();
        let line = format!("{} after {}{why}", outcome.status, seconds(duration));
        self.logs.narrate(&LogId::Job, &line).await?;
        self.tell(Body::JobEnded {
            status: outcome.status,
            cause: outcome.cause.clone(),
            reason,
            duration,
        })
        .await
    }
}

impl From<IllegalTransition> for Failure {
    fn from(error: IllegalTransition) -> Self {
        Self::Host {
            reason: "kiln lost track of this job".into(),
            error: std::io::Error::other(error),
        }
    }
}

/// A duration for people.
pub(crate) fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        total if total % 60 == 0 => format!("{} min", total / 60),
        total => format!("{} min {} s", total / 60, total % 60),
    }
}
