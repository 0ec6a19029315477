//! What a job needs of a machine: [`Machine`] makes a [`Guest`], a guest runs
//! commands until it is stopped.
//!
//! Two machines exist: [`crate::qemu`] boots images in virtual machines, and
//! the dummy (feature `testing`) obeys a few words in milliseconds. The step
//! engine in `kiln-worker` knows only these traits, so that another kind of
//! machine (a Nix builder, a remote host) needs no change there.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use tokio::{io::AsyncRead, net::TcpStream};

use crate::{
    image::Image,
    network::{Farm, Network},
};

/// Makes guests.
#[async_trait]
pub trait Machine: Send + Sync {
    /// Starts one guest and waits until it takes commands.
    ///
    /// Dropping the future stops whatever was already started.
    ///
    /// # Errors
    /// [`StartError`]: the image or the host can't, or the guest never
    /// answered.
    async fn start(&self, spec: &GuestSpec) -> Result<Box<dyn Guest>, StartError>;
}

/// What to start.
#[derive(Debug, Clone)]
pub struct GuestSpec {
    /// The image, found and checked.
    pub image: Image,
    /// Memory in MiB; the image's own default when absent.
    pub memory_mib: Option<u32>,
    /// Virtual CPUs.
    pub cpus: u32,
    /// What the guest may reach.
    pub network: Network,
    /// What answers at `farm.internal`, where the guest has a network.
    pub farm: Option<Arc<dyn Farm>>,
    /// A private directory that exists; the guest's files go there and the
    /// caller removes it after [`Guest::stop`].
    pub dir: PathBuf,
}

/// One running machine. Dropping it kills the machine.
#[async_trait]
pub trait Guest: Send + Sync {
    /// Runs a command as the image's user and waits until its process exits,
    /// even when something it left in the background still holds the output
    /// (which lives on, its later output dropped).
    ///
    /// Dropping the future leaves the command running in the guest.
    ///
    /// # Errors
    /// [`GuestError`] when the guest or the way to it is lost, or the sink
    /// refuses the output.
    async fn exec(&self, exec: Exec<'_>, output: &mut dyn Sink) -> Result<ExitCode, GuestError>;

    /// Adds a package repository, by the image's `add_repository`.
    ///
    /// # Errors
    /// As [`Guest::exec`].
    async fn add_repository(
        &self,
        name: &str,
        source: &str,
        output: &mut dyn Sink,
    ) -> Result<ExitCode, GuestError>;

    /// Installs packages, by the image's `install`.
    ///
    /// # Errors
    /// As [`Guest::exec`].
    async fn install(
        &self,
        packages: &[String],
        output: &mut dyn Sink,
    ) -> Result<ExitCode, GuestError>;

    /// Makes sure that the next command sees what a fresh login would: the
    /// groups, limits and environment that earlier commands may have changed.
    /// Also mends a connection that broke while nothing was running.
    ///
    /// # Errors
    /// [`GuestError`] when no new login succeeds.
    async fn fresh_login(&self) -> Result<(), GuestError>;

    /// A raw connection to the guest's SSH server, for a person's own client.
    ///
    /// # Errors
    /// [`GuestError`] when the guest is gone or has no such server.
    async fn dial(&self) -> Result<TcpStream, GuestError>;

    /// Waits until the guest is gone and says how. Never returns for a guest
    /// that lives; may be called by several at once.
    async fn gone(&self) -> Gone;

    /// Whether the host had no space for something that the guest wrote. The
    /// guest saw an I/O error then, and what failed after it is not its fault.
    fn disk_full(&self) -> bool {
        false
    }

    /// How commands are run in it.
    fn login(&self) -> &Login;

    /// Ends the guest and waits until nothing of it is left.
    async fn stop(&self);
}

/// A guest that several hold.
#[async_trait]
impl<G: Guest> Guest for std::sync::Arc<G> {
    async fn exec(&self, exec: Exec<'_>, output: &mut dyn Sink) -> Result<ExitCode, GuestError> {
        (**self).exec(exec, output).await
    }

    async fn add_repository(
        &self,
        name: &str,
        source: &str,
        output: &mut dyn Sink,
    ) -> Result<ExitCode, GuestError> {
        (**self).add_repository(name, source, output).await
    }

    async fn install(
        &self,
        packages: &[String],
        output: &mut dyn Sink,
    ) -> Result<ExitCode, GuestError> {
        (**self).install(packages, output).await
    }

    async fn fresh_login(&self) -> Result<(), GuestError> {
        (**self).fresh_login().await
    }

    async fn dial(&self) -> Result<TcpStream, GuestError> {
        (**self).dial().await
    }

    async fn gone(&self) -> Gone {
        (**self).gone().await
    }

    fn disk_full(&self) -> bool {
        (**self).disk_full()
    }

    fn login(&self) -> &Login {
        (**self).login()
    }

    async fn stop(&self) {
        (**self).stop().await;
    }
}

/// How commands are run in guests of an image; an image's `config.yml` may
/// replace each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user's home directory.
    pub home: String,
    /// The command that is git.
    pub git: String,
    /// Replaces the preamble of each task's script.
    pub preamble: Option<String>,
}

impl Default for Login {
    fn default() -> Self {
        Self {
            home: "/home/build".into(),
            git: "git".into(),
            preamble: None,
        }
    }
}

/// A command for [`Guest::exec`].
pub struct Exec<'a> {
    /// The line for the login shell.
    pub command: &'a str,
    /// What the command reads.
    pub stdin: Stdin<'a>,
    /// Where the command's standard error goes.
    pub stderr: Stderr,
}

impl<'a> Exec<'a> {
    /// A command with empty standard input, its errors among its output.
    #[must_use]
    pub fn new(command: &'a str) -> Self {
        Self {
            command,
            stdin: Stdin::Empty,
            stderr: Stderr::Merged,
        }
    }

    /// The same with these bytes as its standard input.
    #[must_use]
    pub fn with_stdin(command: &'a str, stdin: &'a [u8]) -> Self {
        Self {
            stdin: Stdin::Bytes(stdin),
            ..Self::new(command)
        }
    }
}

/// Standard input of a command.
pub enum Stdin<'a> {
    /// At its end from the start.
    Empty,
    /// These bytes, then the end.
    Bytes(&'a [u8]),
    /// Whatever this gives, to its end.
    Reader(&'a mut (dyn AsyncRead + Send + Unpin)),
}

/// Where standard error goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stderr {
    /// Into the output, in the order of writing.
    Merged,
    /// Nowhere: the output is data.
    Dropped,
}

/// Takes a command's output as it comes. A slow sink slows the command down.
#[async_trait]
pub trait Sink: Send {
    /// Takes all of these bytes.
    ///
    /// # Errors
    /// Ends the command's reading: [`GuestError::Output`].
    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()>;
}

#[async_trait]
impl Sink for Vec<u8> {
    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Keeps the first so many bytes and drops the rest, for an answer that is
/// wanted whole in memory from a guest that may write without end.
#[derive(Debug)]
pub struct Bounded {
    /// What came first.
    pub bytes: Vec<u8>,
    limit: usize,
    /// Whether there was more than is kept.
    pub overflowed: bool,
}

impl Bounded {
    /// Keeps at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
            overflowed: false,
        }
    }
}

#[async_trait]
impl Sink for Bounded {
    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let room = self.limit - self.bytes.len();
        let kept = bytes.get(..room).unwrap_or(bytes);
        self.bytes.extend_from_slice(kept);
        self.overflowed |= kept.len() < bytes.len();
        Ok(())
    }
}

/// A command's exit status as a shell gives it: 128 + the signal's number
/// when a signal ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitCode(pub u32);

impl ExitCode {
    /// Whether the command succeeded.
    #[must_use]
    pub fn success(self) -> bool {
        self.0 == 0
    }
}

/// How a guest ended. The text is for the job's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// The guest powered itself off or rebooted.
    #[error("the guest was powered off from inside")]
    PoweredOff,
    /// The guest's kernel panicked.
    #[error("the guest's kernel panicked")]
    Panicked,
    /// The machine ended in a way that the guest can't cause by asking.
    #[error("the virtual machine ended unexpectedly")]
    Crashed,
    /// [`Guest::stop`] was called.
    #[error("the guest was stopped")]
    Stopped,
}

/// Why a guest could not do what it was asked. The text is for the job's
/// owner and shows nothing of the host.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The guest is gone.
    #[error("{0}")]
    Gone(#[from] Gone),
    /// The connection into the guest ended while a command ran.
    #[error("the connection to the guest was lost")]
    Connection,
    /// The guest lets nobody in any more.
    #[error("the guest accepts no new login")]
    Login,
    /// The host's side failed; the operator's log says how.
    #[error("the host of this guest had a failure of its own")]
    Host,
    /// The sink took no more.
    #[error("the output could not be stored: {0}")]
    Output(#[source] std::io::Error),
}

/// Why no guest came to be. `Display` is for the operator and may name paths;
/// [`StartError::for_owner`] is for the job's log.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The image can't be used.
    #[error("{0}")]
    Image(String),
    /// The host can't: no QEMU, no memory, no disk space, no namespaces.
    #[error("{0}")]
    Host(String),
    /// The guest ended while it started.
    #[error("{gone} while it started{}", detail_suffix(.detail))]
    Gone {
        /// How.
        gone: Gone,
        /// The last lines of QEMU or the console.
        detail: String,
    },
    /// The guest lived but nobody could log in in time.
    #[error("the guest never let us in: {reason}{}", detail_suffix(.detail))]
    NoLogin {
        /// What was seen of its SSH server.
        reason: &'static str,
        /// The last lines of the console.
        detail: String,
    },
}

fn detail_suffix(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!("\n{detail}")
    }
}

impl StartError {
    /// The sentence for the job's log; names nothing of the host.
    #[must_use]
    pub fn for_owner(&self) -> String {
        match self {
            Self::Image(_) => "the image of this job can't be used on this host".into(),
            Self::Host(_) => "the host could not start a guest".into(),
            Self::Gone { gone, .. } => format!("{gone} while it started"),
            Self::NoLogin { reason, .. } => format!("the guest never let us in: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bounded_sink_keeps_the_first_bytes_and_tells_of_more() {
        let mut sink = Bounded::new(5);
        sink.write(b"abc").await.unwrap();
        sink.write(b"de").await.unwrap();
        assert!(!sink.overflowed);
        sink.write(b"").await.unwrap();
        assert!(!sink.overflowed);
        sink.write(b"fgh").await.unwrap();
        assert_eq!(
            (sink.bytes.as_slice(), sink.overflowed),
            (&b"abcde"[..], true)
        );
    }
}
