//! The namespace's way to the outside: slirp4netns, a user-mode network that
//! works for ordinary users.
//!
//! It runs outside the namespace, ends when our end of its socket does, and
//! asks the host's own resolver, so that the rules need no hole for it.
//!
//! ```text
//!  its standard input   the pipe into which it says that it is ready
//!  its standard output  the socket it watches for our end; its notes go there
//!  its standard error   why it failed
//! ```
//!
//! Readiness has a pipe of its own because the notes come before it.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::Stdio,
};

use rustix::{
    pipe::PipeFlags,
    process::{Pid, Resource, Rlimit, prlimit},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::unix::pipe,
    process::{Child, ChildStderr, Command},
    time::{Duration, timeout},
};

use super::filter::{UPLINK_DESCRIPTORS, UPLINK_NETWORK};
use crate::namespace::SYSTEM_PATH;

/// It takes some 20 ms; a busy host needs more.
const READY_DEADLINE: Duration = Duration::from_secs(20);

/// A running uplink. Dropping it ends it.
pub(crate) struct Uplink {
    child: Child,
    /// The uplink watches this socket's other end (`--exit-fd`).
    _alive: UnixStream,
}

impl Uplink {
    /// Connects the namespace of this process.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn start(pid: u32) -> Result<Self, String> {
        let pipes = || -> io::Result<_> {
            let (ready, ready_theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            Ok((
                pipe::Receiver::from_owned_fd(ready)?,
                ready_theirs,
                UnixStream::pair()?,
            ))
        };
        let (mut ready, ready_theirs, (alive, alive_theirs)) =
            pipes().map_err(|error| format!("a pipe for slirp4netns: {error}"))?;
        let mut child = Command::new("slirp4netns")
            .args(["--configure", "--mtu=65520", "--cidr", UPLINK_NETWORK])
            .args(["--disable-host-loopback", "--enable-sandbox", "--enable-seccomp"])
            .args(["--ready-fd=0", "--exit-fd=1"])
            .arg(pid.to_string())
            .arg("tap0")
            .env_clear()
            .env("PATH", SYSTEM_PATH)
            .stdin(Stdio::from(ready_theirs))
            .stdout(Stdio::from(OwnedFd::from(alive_theirs)))
            .stderr(Stdio::piped())
            // Ctrl-C on the terminal is for kiln alone.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("slirp4netns, the guest's uplink, did not start: {error}; install the package slirp4netns, or run without network"))?;
        limit_descriptors(&child);
        let mut byte = [0];
        let answered = timeout(READY_DEADLINE, ready.read_exact(&mut byte)).await;
        if matches!(answered, Ok(Ok(_))) {
            if let Some(stderr) = child.stderr.take() {
                tokio::spawn(tell(stderr));
            }
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
        let lines: Vec<&str> = said
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        let reason = if lines.is_empty() {
            "no reason given".to_owned()
        } else {
            lines.join("; ")
        };
        Err(format!(
            "slirp4netns, the guest's uplink, failed: {reason}; `kiln doctor` looks at what it needs"
        ))
    }

    /// Its process, while it has not ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it has ended by itself, and says how.
    pub async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Ends it and waits.
    pub async fn stop(&mut self) {
        let _ = self.child.kill().await;
    }
}

/// The rules bound what a guest has open; this holds should they fail. Where
/// our own limit is lower, that one stays.
fn limit_descriptors(child: &Child) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let Some(pid) = pid.and_then(Pid::from_raw) else {
        return;
    };
    let ours = rustix::process::getrlimit(Resource::Nofile).maximum;
    let most = ours.map_or(UPLINK_DESCRIPTORS, |ours| ours.min(UPLINK_DESCRIPTORS));
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    if let Err(error) = prlimit(Some(pid), Resource::Nofile, limit) {
        tracing::debug!(%error, "the uplink's descriptors are not limited");
    }
}

/// Passes what it says on to the operator, line by line; unread it would fill
/// its pipe and stand still.
async fn tell(stderr: ChildStderr) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::debug!("slirp4netns: {line}");
    }
}
