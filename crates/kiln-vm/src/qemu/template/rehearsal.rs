//! Whether kiln's helper in a guest may be the way in, and its rehearsal.
//!
//! The helper counts only where it gives what a login gives: the environment
//! of a login is handed to it, and then a command must see the same by both
//! ways. What clones do first is done once before the freeze, so that the
//! programs and directories which it needs are in the guest's memory already.

use std::time::Duration;

use tokio::time::timeout;

use crate::{
    agent::Agent,
    machine::{Bounded, Exec, File, GuestError, Put, Stderr},
    ssh::Session,
};

use super::{
    super::{guest::Running, ready, start::Started},
    identity,
};

/// It starts right after the SSH server that has just answered.
const MEET: Duration = Duration::from_secs(20);
/// Some ten commands, in an emulated guest of a busy host.
const DEADLINE: Duration = Duration::from_mins(2);
/// Why it is not used then.
const SILENT: &str = "it does not answer in time";
/// What is compared.
const MAX_SAID: usize = 256 << 10;

/// All that a command sees of its login. `_` and `SHLVL` are the shell's own.
const LOOK: &str = "ulimit -a; ulimit -Ha; umask; id; pwd; env -0 | sort -z | grep -zv -e ^_= -e ^SHLVL= | tr '\\0' '\\n'";
/// What binds its commands.
const BOUNDS: &str = "umask; cat /proc/self/limits";
/// The variables of a login, zero-separated, without what each shell sets.
const ENVIRONMENT: &str = "env -0 | grep -zv -e ^_= -e ^SHLVL= -e ^PWD= -e ^OLDPWD=";

/// A helper that may be the way in.
pub(super) struct Helper {
    /// As [`super::About::login`].
    pub login: String,
    /// Its end of the port stays open until the guest is frozen.
    _agent: Agent,
}

/// The helper, if the guest has one that may be the way in.
pub(super) async fn with_helper(started: Started, session: &Session) -> Option<Helper> {
    let closed = started.running.qmp.port_closed();
    let agent = Agent::meet(started.port, closed, String::new(), MEET).await;
    let Ok(agent) = agent else {
        tracing::debug!("the guest has no helper");
        return None;
    };
    let rehearsed = timeout(DEADLINE, rehearse(&agent, session)).await;
    match rehearsed.unwrap_or_else(|_| Err(SILENT.into())) {
        Ok(login) => Some(Helper {
            login,
            _agent: agent,
        }),
        Err(reason) => {
            tracing::info!("the helper in the guest is not used: {reason}");
            None
        }
    }
}

/// What a login depends on now, that packages may have changed. None when the
/// helper would not give what a login gives any more.
pub(super) async fn login_now(agent: &Agent, running: &Running) -> Result<Option<String>, String> {
    let words = |error: GuestError| error.to_string();
    let now = agent.login().await.map_err(words)?;
    if agent.was(&now) {
        return Ok(Some(now));
    }
    let mut reason = "";
    let (qmp, port) = (&running.qmp, running.guest_port);
    let login = ready::first_login(running, qmp, port, ready::Guest::IsUp, &mut reason);
    let session = timeout(MEET, login).await.map_err(|_| reason.to_owned())?;
    let aligned = timeout(DEADLINE, align(agent, &session)).await;
    let aligned = aligned.unwrap_or_else(|_| Err(SILENT.into()));
    session.close().await;
    match aligned {
        Ok(()) => agent.login().await.map(Some).map_err(words),
        Err(reason) => {
            tracing::info!("the helper in the guest is not used: {reason}");
            Ok(None)
        }
    }
}

async fn rehearse(agent: &Agent, session: &Session) -> Result<String, String> {
    align(agent, session).await?;
    perform(agent).await?;
    agent.login().await.map_err(|error| error.to_string())
}

/// Gives the helper the environment and the bounds of a login, and compares the
/// two.
async fn align(agent: &Agent, session: &Session) -> Result<(), String> {
    let words = |error: GuestError| error.to_string();
    let mut variables = Bounded::new(MAX_SAID);
    let exec = Exec {
        stderr: Stderr::Dropped,
        ..Exec::new(ENVIRONMENT)
    };
    session.exec(exec, &mut variables).await.map_err(words)?;
    let variables = variables.bytes;
    let variables = variables.strip_suffix(b"\0").unwrap_or(&variables);
    agent.set_environment(variables).await.map_err(words)??;
    let mut bounds = Bounded::new(MAX_SAID);
    let exec = Exec {
        stderr: Stderr::Dropped,
        ..Exec::new(BOUNDS)
    };
    session.exec(exec, &mut bounds).await.map_err(words)?;
    agent.set_bounds(&bounds.bytes).await.map_err(words)??;
    let (mut by_login, mut by_helper) = (Bounded::new(MAX_SAID), Bounded::new(MAX_SAID));
    let look = Exec::new(LOOK);
    session.exec(look, &mut by_login).await.map_err(words)?;
    let look = Exec::new(LOOK);
    agent.exec(look, &mut by_helper).await.map_err(words)?;
    if by_login.bytes == by_helper.bytes {
        return Ok(());
    }
    let text = |said: &Bounded| String::from_utf8_lossy(&said.bytes).into_owned();
    let (login, helper) = (text(&by_login), text(&by_helper));
    tracing::debug!("by login:\n{login}\nby helper:\n{helper}");
    Err("its commands would not see what those of a login see".into())
}

/// What every job begins with.
pub(in super::super) async fn perform(agent: &Agent) -> Result<(), String> {
    let words = |error: GuestError| error.to_string();
    let line = identity::line().map_err(|error| error.to_string())?;
    agent.renew(&line).await.map_err(words)??;
    let home = "/tmp/kiln-rehearsal";
    let script = Put::File(File {
        path: format!("{home}/.tasks/task"),
        mode: 0o755,
        bytes: b"#!/usr/bin/env bash\nset -xe\necho rehearsed\n".into(),
    });
    let mut said = Bounded::new(MAX_SAID);
    if agent
        .put(&[script], &mut said)
        .await
        .map_err(words)?
        .is_some()
    {
        return Err("it can't write files".into());
    }
    let task = Exec::program(home, &["bash", "./.tasks/task"]);
    let remove = format!("rm -r {home}");
    for exec in [task, Exec::new(&remove)] {
        let code = agent.exec(exec, &mut said).await.map_err(words)?;
        if !code.success() {
            return Err("it can't run commands".into());
        }
    }
    Ok(())
}
