//! Boots a guest and freezes it.

use std::{
    fs::File,
    os::fd::AsFd,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    super::{
        command::Ram,
        qmp::{Qmp, QmpError},
        ready,
        start::{Origin, Started},
    },
    Boot, DISK, Failed, MEMORY, STATE, identity, memory, rehearsal,
};
use crate::{machine::GuestSpec, ssh::Session};

/// A guest that is never quiet is frozen all the same.
const QUIET_DEADLINE: Duration = Duration::from_secs(60);
/// How long it must be quiet.
const QUIET_FOR: Duration = Duration::from_millis(600);
/// Of one processor, in percent: what an idle emulated guest needs.
const QUIET_LOAD: u64 = 15;
/// Writing the state takes a few hundredths of a second.
const MIGRATION_DEADLINE: Duration = Duration::from_secs(120);
/// How often the migration is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// What became of it.
pub(super) enum Frozen {
    /// All files are there.
    Whole {
        /// As [`super::About::login`].
        login: Option<String>,
    },
    /// A guest of this image can't be cloned, and why.
    Unsuited(&'static str),
}

/// Makes memory, state and disk in this directory.
pub(super) async fn guest(boot: &Boot<'_>, dir: &Path) -> Result<Frozen, Failed> {
    let spec = GuestSpec {
        dir: dir.to_owned(),
        // That of one job is not the next one's.
        disk_mib: None,
        // It is one job's own.
        farm: None,
        ..boot.spec.clone()
    };
    let line = boot.machine.command_line(boot.request, &spec, None, false);
    let mib = u64::from(line?.memory_mib);
    let ram = memory::create(mib << 20)?;
    let same = Arc::new(ram.try_clone()?.into());
    let loading = tokio::task::spawn_blocking(move || Ok(same));
    let origin = Origin {
        ram: Some((loading, Ram::Shared)),
        ..Origin::cold(&spec.image, boot.size)
    };
    let started = boot
        .machine
        .launch(boot.functions, boot.request, &spec, origin)
        .await;
    // Something of the cache's own, as a full disk: a boot elsewhere may work.
    let started = started.map_err(|error| error.to_string())?;
    let running = Arc::clone(&started.running);
    let frozen = freeze(boot, started, dir).await;
    running.stop().await;
    if matches!(frozen, Ok(Frozen::Whole { .. })) {
        let path = dir.join(MEMORY);
        let stored = tokio::task::spawn_blocking(move || memory::store(&ram, &path)).await;
        stored.map_err(std::io::Error::other)??;
        // A power cut must not leave files of the right length with holes.
        for name in [STATE, DISK] {
            File::open(dir.join(name))?.sync_all()?;
        }
    }
    frozen
}

async fn freeze(boot: &Boot<'_>, started: Started, dir: &Path) -> Result<Frozen, Failed> {
    let session = boot
        .machine
        .first_login(&started, ready::Guest::Boots)
        .await?;
    let running = Arc::clone(&started.running);
    let agent = rehearsal::with_helper(started, &session).await;
    if agent.is_none() && !identity::supported(&session).await? {
        return Ok(Frozen::Unsuited(
            "it has no root without a password, or no perl",
        ));
    }
    leave(session).await;
    wait_until_quiet(running.namespace.init_pid()).await;
    Ok(match save(&running.qmp, dir).await? {
        Some(unsuited) => Frozen::Unsuited(unsuited),
        None => Frozen::Whole {
            login: agent.map(|agent| agent.login),
        },
    })
}

/// Clones shall not inherit a connection.
async fn leave(session: Session) {
    session.close().await;
    drop(session);
}

/// Looks at the processor time of QEMU, whatever the guest's system is.
async fn wait_until_quiet(init: u32) {
    let deadline = Instant::now() + QUIET_DEADLINE;
    let mut quiet_since = Instant::now();
    let mut before = (Instant::now(), cpu_ticks(init));
    while Instant::now() < deadline && quiet_since.elapsed() < QUIET_FOR {
        sleep(Duration::from_millis(200)).await;
        let now = (Instant::now(), cpu_ticks(init));
        let elapsed = now.0.duration_since(before.0).as_millis().max(1);
        // 100 ticks a second (sysconf(_SC_CLK_TCK) on Linux).
        let load = u128::from(now.1.saturating_sub(before.1)) * 1000 / elapsed;
        if load > u128::from(QUIET_LOAD) {
            quiet_since = Instant::now();
        }
        before = now;
    }
}

/// Processor time of init's children, in ticks.
fn cpu_ticks(init: u32) -> u64 {
    let children = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children"));
    let children = children.unwrap_or_default();
    children.split_whitespace().filter_map(process_ticks).sum()
}

/// Fields 14 and 15 of proc_pid_stat(5), after the name in brackets.
fn process_ticks(pid: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(field(11)? + field(12)?)
}

/// Writes the state of the devices. The sentence is why there can't be one.
pub(super) async fn save(qmp: &Arc<Qmp>, dir: &Path) -> Result<Option<&'static str>, String> {
    let text = |error: QmpError| error.to_string();
    let state = File::create_new(dir.join(STATE)).map_err(|error| error.to_string())?;
    qmp.execute("stop", json!({})).await.map_err(text)?;
    ignore_shared(qmp).await?;
    qmp.give(STATE, state.as_fd()).await.map_err(text)?;
    let uri = json!({ "uri": format!("fd:{STATE}") });
    match qmp.execute("migrate", uri).await {
        Ok(_) => {}
        // A device that can't be migrated: QEMU says which.
        Err(error @ QmpError::Refused { .. }) => {
            tracing::info!(%error, "the guest can't be frozen");
            return Ok(Some("one of its devices can't be frozen"));
        }
        Err(error) => return Err(error.to_string()),
    }
    let deadline = Instant::now() + MIGRATION_DEADLINE;
    loop {
        let answer = qmp
            .execute("query-migrate", json!({}))
            .await
            .map_err(text)?;
        match answer.get("status").and_then(Value::as_str) {
            Some("completed") => return unharmed(qmp),
            Some("failed" | "cancelled") => return Err("QEMU could not write the state".into()),
            _ if Instant::now() > deadline => {
                return Err("QEMU did not write the state in time".into());
            }
            _ => sleep(LOOK).await,
        }
    }
}

/// The memory is in a file already and shall not be in the state.
pub(super) async fn ignore_shared(qmp: &Qmp) -> Result<(), String> {
    let capabilities = json!({
        "capabilities": [{ "capability": "x-ignore-shared", "state": true }]
    });
    let set = qmp.execute("migrate-set-capabilities", capabilities).await;
    set.map(drop).map_err(|error| error.to_string())
}

/// What the guest wrote and could not is missing from its disk for ever.
fn unharmed(qmp: &Qmp) -> Result<Option<&'static str>, String> {
    let events = qmp.events();
    if events.disk_full || events.disk_limit || events.panicked {
        return Err("the guest could not write to its disk, or panicked".into());
    }
    Ok(None)
}
