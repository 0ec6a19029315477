//! `kiln ssh`: into the guest of a run that was kept, by OpenSSH's client.
//!
//! The way is the run's private socket; `ssh` reaches it by this binary again
//! ([`DIAL_COMMAND`]), as its ProxyCommand.

use std::{path::Path, process::Stdio};

use kiln_core::guest_files::shell_quote;
use kiln_vm::ssh::{USER, connect_private};
use tokio::io::{AsyncWriteExt, copy};

use crate::{
    cli::SshArgs,
    exit::{Exit, Failure},
    host::paths,
};

/// The hidden first argument that connects standard input and output to a
/// run's socket.
pub const DIAL_COMMAND: &str = "__dial";

/// The guest is hostile: it is shown no key and no agent of the user's, and
/// gets no way back. Who it is nobody knows; its user's password is empty.
const OPTIONS: &[&str] = &[
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "UpdateHostKeys=no",
    "LogLevel=ERROR",
    "IdentityAgent=none",
    "IdentityFile=none",
    "PubkeyAuthentication=no",
    "HostbasedAuthentication=no",
    "GSSAPIAuthentication=no",
    "PreferredAuthentications=none,password,keyboard-interactive",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
];

/// Runs the command.
pub async fn run(args: &SshArgs) -> Result<Exit, Failure> {
    let runs = paths::runs()?;
    let door = |run: &str| runs.join(run).join(".guest").join("door");
    let run = match &args.run {
        Some(run) => run.clone(),
        None => newest(&runs, |run| door(run).exists())?,
    };
    let door = door(&run);
    if !door.exists() {
        return Err(Failure::usage(format!(
            "the run {run} has no guest that waits"
        )));
    }
    enter(&door, &args.command).await
}

fn newest(runs: &Path, waits: impl Fn(&str) -> bool) -> Result<String, Failure> {
    let entries = std::fs::read_dir(runs).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| waits(name))
        .max()
        .ok_or_else(|| Failure::usage("no run has a guest that waits; `kiln run --keep` keeps one"))
}

/// Runs a command, or a shell, behind a door.
pub async fn enter(door: &Path, command: &[String]) -> Result<Exit, Failure> {
    let program = paths::this_program()?;
    let proxy = format!(
        "{} {DIAL_COMMAND} {}",
        shell_quote(&program.display().to_string()),
        shell_quote(&door.display().to_string())
    );
    // `%` begins a token of ssh's own.
    let proxy = proxy.replace('%', "%%");
    let status = tokio::process::Command::new("ssh")
        .args(["-F", "none"])
        .args(OPTIONS.iter().flat_map(|option| ["-o", option]))
        .arg("-o")
        .arg(format!("ProxyCommand={proxy}"))
        .arg("--")
        .arg(format!("{USER}@guest"))
        .args(command)
        .stdin(Stdio::inherit())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|error| Failure::host(format!("ssh: {error}; install openssh-client")))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(match code {
        Some(0) => Exit::Success,
        Some(code) => Exit::Other(code),
        None => Exit::Other(255),
    })
}

/// The other end of the ProxyCommand.
pub async fn dial(socket: &Path) -> std::io::Result<()> {
    let (mut read, mut write) = connect_private(socket)?.into_split();
    let out = async {
        let mut stdout = tokio::io::stdout();
        copy(&mut read, &mut stdout).await?;
        stdout.flush().await
    };
    let input = async {
        copy(&mut tokio::io::stdin(), &mut write).await?;
        write.shutdown().await?;
        std::future::pending().await
    };
    tokio::select! {
        done = out => done,
        done = input => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the client makes of the options, as it says itself.
    #[test]
    fn a_guest_is_offered_no_key_and_no_agent() {
        let asked = std::process::Command::new("ssh")
            .args(["-F", "none"])
            .args(OPTIONS.iter().flat_map(|option| ["-o", option]))
            .args(["-G", "build@guest"])
            .env("SSH_AUTH_SOCK", "/run/agent")
            .output();
        let Ok(output) = asked else { return };
        let config = String::from_utf8_lossy(&output.stdout).into_owned();
        for line in [
            "identityagent none",
            "identityfile none",
            "pubkeyauthentication false",
            "forwardagent no",
            "clearallforwardings yes",
        ] {
            assert!(
                config.lines().any(|found| found == line),
                "{line}: {config}"
            );
        }
    }
}
