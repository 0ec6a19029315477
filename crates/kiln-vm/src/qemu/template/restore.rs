//! Starts a guest from a template.

use std::{
    fs::File,
    os::{fd::AsFd, unix::fs::MetadataExt as _},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{
    super::{
        QemuGuest,
        command::Ram,
        guest::StartedFrom,
        qmp::Qmp,
        ready,
        start::{Origin, Started, Stopwatch, available_memory_mib},
    },
    Boot, DISK, MEMORY, STATE,
    freeze::ignore_shared,
    identity, memory, read_about,
};
use crate::{agent::Agent, session::Session};

/// Loading the state takes a hundredth of a second.
const LOAD_DEADLINE: Duration = Duration::from_secs(30);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// How long a clone may take to let us in: it only has to go on. Fifty at once
/// on two cores need more than a minute.
const LOGIN_DEADLINE: Duration = Duration::from_mins(3);

/// Why there is no guest. Sentences for the operator.
pub(super) enum Failed {
    /// QEMU did not come up, for a reason of the host's.
    Launch(String),
    /// The template is to blame.
    Revive(String),
}

/// What to start from.
pub(super) struct Start<'a> {
    /// The template.
    pub template: &'a Path,
    /// The one below it.
    pub base: Option<&'a Path>,
    /// Whether the guest's memory is one that it may change, so that it can be
    /// kept as it is later.
    pub own_memory: Option<Arc<File>>,
}

impl Start<'_> {
    fn origin(&self, boot: &Boot<'_>) -> Origin {
        let ram = match &self.own_memory {
            Some(memory) => {
                let memory = Arc::clone(memory);
                let opened = move || Ok(Arc::new(memory.try_clone()?.into()));
                (tokio::task::spawn_blocking(opened), Ram::Shared)
            }
            None => (boot.templates.memory(self.template), Ram::Private),
        };
        let dirs = [Some(self.template), self.base].into_iter().flatten();
        // Only what QEMU needs of them: its own directory.
        let visible = dirs.filter_map(|dir| Some(dir.join(DISK).parent()?.to_owned()));
        Origin {
            ram: Some(ram),
            incoming: true,
            disk: self.template.join(DISK),
            visible: visible.collect(),
            size: boot.size,
        }
    }
}

/// A guest that is a machine of its own.
pub(super) async fn guest(
    boot: &Boot<'_>,
    start: Start<'_>,
    from: StartedFrom,
) -> Result<Arc<QemuGuest>, Failed> {
    let mut watch = Stopwatch::start();
    enough_memory(boot, start.template).map_err(Failed::Launch)?;
    let origin = start.origin(boot);
    let started = boot
        .machine
        .launch(boot.functions, boot.request, boot.spec, origin)
        .await;
    let started = started.map_err(|error| Failed::Launch(error.to_string()))?;
    watch.lap("template: memory, namespace, uplink, QEMU");
    let running = Arc::clone(&started.running);
    match revive(boot, started, start.template, &mut watch).await {
        Ok(session) => Ok(QemuGuest::new(running, session, from)),
        Err(reason) => {
            running.stop().await;
            // The guest is booted next, with files of the same names.
            let _ = std::fs::remove_file(super::super::start::overlay_path(&boot.spec.dir));
            // What this one guest may write says nothing of the template.
            if running.qmp.events().disk_limit {
                return Err(Failed::Launch(reason));
            }
            Err(Failed::Revive(reason))
        }
    }
}

/// A clone has its template's memory beside its own.
fn enough_memory(boot: &Boot<'_>, template: &Path) -> Result<(), String> {
    let line = boot
        .machine
        .command_line(boot.request, boot.spec, Some(Ram::Private), true);
    let own = u64::from(line.map_err(|error| error.to_string())?.memory_mib);
    // Blocks are of 512 bytes (stat(2)); 2048 are a MiB.
    let frozen = std::fs::metadata(template.join(MEMORY)).map_or(0, |meta| meta.blocks() / 2048);
    match available_memory_mib() {
        Some(available) => fits(own, frozen, available),
        None => Ok(()),
    }
}

/// All in MiB.
fn fits(own: u64, frozen: u64, available: u64) -> Result<(), String> {
    if own.saturating_add(frozen) <= available {
        return Ok(());
    }
    Err(format!(
        "it needs {frozen} MiB of memory beside the guest's {own} MiB, {available} MiB are available"
    ))
}

async fn revive(
    boot: &Boot<'_>,
    started: Started,
    template: &Path,
    watch: &mut Stopwatch,
) -> Result<Session, String> {
    load(&started.running.qmp, template).await?;
    watch.lap("template: state");
    let session = enter(boot, started, template).await?;
    watch.lap("template: login");
    identity::renew(&session, &boot.spec.image.arch).await?;
    watch.lap("template: identity");
    Ok(session)
}

/// By the helper, where the template has one.
async fn enter(boot: &Boot<'_>, started: Started, template: &Path) -> Result<Session, String> {
    if let Some(login) = read_about(template).and_then(|about| about.login) {
        let closed = started.running.qmp.port_closed();
        let agent = Agent::meet(started.port, closed, login, LOGIN_DEADLINE).await;
        let agent = agent.map_err(|_| "the helper in the clone does not answer")?;
        return Ok(Session::Agent(agent));
    }
    let login = boot.machine.first_login(&started, ready::Guest::IsUp);
    match timeout(LOGIN_DEADLINE, login).await {
        Ok(session) => Ok(Session::Ssh(session.map_err(|error| error.to_string())?)),
        Err(_) => Err("the clone let nobody in".into()),
    }
}

async fn load(qmp: &Qmp, template: &Path) -> Result<(), String> {
    let text = |error: super::super::qmp::QmpError| error.to_string();
    let state = memory::load(&template.join(STATE)).map_err(|error| error.to_string())?;
    ignore_shared(qmp).await?;
    qmp.give(STATE, state.as_fd()).await.map_err(text)?;
    let uri = json!({ "uri": format!("fd:{STATE}") });
    qmp.execute("migrate-incoming", uri).await.map_err(text)?;
    let deadline = Instant::now() + LOAD_DEADLINE;
    loop {
        let answer = qmp.execute("query-status", json!({})).await.map_err(text)?;
        match answer.get("status").and_then(Value::as_str) {
            Some("inmigrate") if Instant::now() < deadline => sleep(LOOK).await,
            Some("inmigrate") => return Err("QEMU did not load the state in time".into()),
            _ => break,
        }
    }
    qmp.execute("cont", json!({})).await.map(drop).map_err(text)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_host_without_memory_for_a_template_says_how_much_is_missing() {
        assert!(fits(1024, 180, 1204).is_ok());
        let lacking = fits(1024, 180, 1203).unwrap_err();
        assert!(lacking.contains("needs 180 MiB of memory beside the guest's 1024 MiB, 1203 MiB"));
    }
}
