//! What happens when the tasks have ended: a shell, or a guest that waits for
//! somebody.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use kiln_core::job::JobStatus;
use kiln_vm::{machine::Guest, ssh::Door};
use kiln_worker::{Hold, Outcome};
use tokio::sync::watch;

use crate::{
    commands::ssh,
    ui::{self, display::Display},
};

/// How long a kept guest waits for the first visitor, as upstream.
const FIRST_VISITOR: Duration = Duration::from_mins(10);

/// The choices of the command line.
pub struct AfterRun {
    /// A shell here, whatever the outcome.
    pub shell: bool,
    /// Wait for a visitor on failure.
    pub keep: bool,
    /// Wait for a visitor whatever the outcome: the manifest's `shell: true`.
    pub keep_always: bool,
    /// The run's name.
    pub run: String,
    /// The socket that leads to the guest.
    pub door: PathBuf,
    /// What to leave the terminal to.
    pub display: Arc<Display>,
    /// Ctrl-C.
    pub interrupted: watch::Receiver<bool>,
}

#[async_trait]
impl Hold for AfterRun {
    async fn hold(&self, guest: &dyn Guest, outcome: &Outcome) {
        let failed = outcome.status != JobStatus::Success;
        if !(self.shell || self.keep_always || self.keep && failed) {
            return;
        }
        self.display.pause().await;
        let door = match Door::open(&self.door) {
            Ok(door) => door,
            Err(error) => return ui::warning(&format!("nobody can enter the guest: {error}")),
        };
        let visitors = door.visitors();
        let mut interrupted = self.interrupted.clone();
        tokio::select! {
            () = door.serve(guest) => {}
            () = self.stay(visitors) => {}
            _ = interrupted.wait_for(|interrupted| *interrupted) => {}
        }
    }
}

impl AfterRun {
    async fn stay(&self, visitors: watch::Receiver<usize>) {
        if self.shell {
            shell(&self.door).await;
        } else {
            ui::note(&format!(
                "the guest waits: `kiln ssh {}` enters it, Ctrl-C ends it",
                self.run
            ));
            wait_for_visitors(visitors).await;
        }
    }
}

async fn shell(door: &Path) {
    ui::note("a shell in the guest; `exit` ends it");
    if let Err(failure) = ssh::enter(door, &[]).await {
        ui::error(&failure.message);
    }
}

/// Ends when nobody came in time, or when the last one has left.
async fn wait_for_visitors(mut visitors: watch::Receiver<usize>) {
    let first = visitors.wait_for(|count| *count > 0);
    if !matches!(tokio::time::timeout(FIRST_VISITOR, first).await, Ok(Ok(_))) {
        return ui::note("nobody came; the guest ends");
    }
    let _ = visitors.wait_for(|count| *count == 0).await;
}
