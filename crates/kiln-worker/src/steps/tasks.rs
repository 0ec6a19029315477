//! The tasks, in order, each in a fresh login.

use kiln_core::{
    guest_files::{COMPLETE_STATUS, completed_command, task_words},
    job::TaskStatus,
    manifest::Task,
};
use kiln_vm::machine::{Bounded, Exec, Guest, GuestError};

use crate::{Job, LogId, log::ANSWER, outcome::Failure, progress::Progress};

/// Runs the tasks. Gives the sentence about an early end.
pub(super) async fn run(
    job: &Job,
    guest: &dyn Guest,
    progress: &mut Progress<'_>,
) -> Result<Option<String>, Failure> {
    for (index, task) in job.manifest.tasks().iter().enumerate() {
        progress.task_begins(index).await?;
        let in_task = |error| Failure::Guest {
            during: format!("task {}", task.name),
            error,
        };
        if index > 0 || changed_as_root(job) {
            guest.fresh_login().await.map_err(in_task)?;
        }
        let mut log = progress.logs.sink(&LogId::Task(task.name.to_string()));
        let login = guest.login();
        let words = task_words(&task.name, login.preamble.as_deref());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let exec = Exec::program(&login.home, &words);
        let code = guest.exec(exec, &mut log).await.map_err(in_task)?.0;
        let complete = code == COMPLETE_STATUS && completed(guest).await.map_err(in_task)?;
        if complete || code == 0 {
            progress.task_ends(index, code, TaskStatus::Success).await?;
        } else {
            progress.task_ends(index, code, TaskStatus::Failed).await?;
            return Err(failed(task, code));
        }
        if complete {
            progress.skip_rest().await?;
            return Ok(Some(format!("task {} completed the build", task.name)));
        }
    }
    Ok(None)
}

/// Whether steps before the first task may have changed what a login gives:
/// its groups, its limits, `/etc/environment`.
fn changed_as_root(job: &Job) -> bool {
    !job.manifest.packages().is_empty() || !job.manifest.repositories().is_empty()
}

/// Whether the task that just ended by [`COMPLETE_STATUS`] completed the build.
async fn completed(guest: &dyn Guest) -> Result<bool, GuestError> {
    let command = completed_command();
    let words = ["sh", "-c", &command];
    let exec = Exec::program(&guest.login().home, &words);
    let code = guest.exec(exec, &mut Bounded::new(ANSWER)).await?;
    Ok(code.success())
}

fn failed(task: &Task, exit: u32) -> Failure {
    Failure::Task {
        task: task.name.to_string(),
        exit,
    }
}
