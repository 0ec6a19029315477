//! The namespace's way to the outside: slirp4netns, a user-mode network that
//! works for ordinary users.
//!
//! It runs outside the namespace, ends when our end of its pipe does, and asks
//! the host's own resolver, so that the rules need no hole for it.

use std::process::Stdio;

use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStdin, Command},
    time::{Duration, timeout},
};

use super::filter::UPLINK_NETWORK;
use crate::namespace::SYSTEM_PATH;

/// It takes some 20 ms; a busy host needs more.
const READY_DEADLINE: Duration = Duration::from_secs(20);

/// A running uplink. Dropping it ends it.
pub(crate) struct Uplink {
    child: Child,
    /// The uplink watches this pipe (`--exit-fd`).
    _alive: Option<ChildStdin>,
}

impl Uplink {
    /// Connects the namespace of this process.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn start(pid: u32) -> Result<Self, String> {
        let mut child = Command::new("slirp4netns")
            .args(["--configure", "--mtu=65520", "--cidr", UPLINK_NETWORK])
            .args(["--disable-host-loopback", "--enable-sandbox", "--enable-seccomp"])
            .args(["--ready-fd=1", "--exit-fd=0"])
            .arg(pid.to_string())
            .arg("tap0")
            .env_clear()
            .env("PATH", SYSTEM_PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("slirp4netns, the guest's uplink, did not start: {error}; install the package slirp4netns, or run without network"))?;
        let alive = child.stdin.take();
        let mut ready = [0];
        let answered = match child.stdout.take() {
            Some(mut stdout) => timeout(READY_DEADLINE, stdout.read_exact(&mut ready)).await,
            None => return Err("slirp4netns has no output".into()),
        };
        if matches!(answered, Ok(Ok(_))) {
            let uplink = Self {
                child,
                _alive: alive,
            };
            return Ok(uplink);
        }
        let _ = child.start_kill();
        let mut said = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            let _ = stderr.take(4096).read_to_end(&mut said).await;
        }
        let said = String::from_utf8_lossy(&said);
        Err(format!(
            "slirp4netns, the guest's uplink, failed: {}; `kiln doctor` looks at what it needs",
            said.lines().last().unwrap_or("no reason given").trim()
        ))
    }

    /// Ends it and waits.
    pub async fn stop(&mut self) {
        let _ = self.child.kill().await;
    }
}
