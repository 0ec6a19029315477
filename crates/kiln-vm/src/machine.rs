//! What a job needs of a machine: [`Machine`] makes a [`Guest`], a guest runs
//! commands until it is stopped.
//!
//! Two machines exist: [`crate::qemu`] boots images in virtual machines, and
//! the dummy (feature `testing`) obeys a few words in milliseconds. The step
//! engine in `kiln-worker` knows only these traits, so that another kind of
//! machine (a Nix builder, a remote host) needs no change there.

use std::{borrow::Cow, fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use kiln_core::guest_files::shell_quote;
use tokio::{io::AsyncRead, net::TcpStream};

use crate::{
    image::Image,
    network::{Farm, Network},
    put,
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
    /// How much the guest may write to its disk, in MiB; all that the disk
    /// holds when absent, and never more.
    pub disk_mib: Option<u32>,
    /// What the guest may reach.
    pub network: Network,
    /// What the job installs, when guests may be kept with it.
    pub preparation: Option<Preparation>,
    /// What answers at `farm.internal`, where the guest has a network.
    pub farm: Option<Arc<dyn Farm>>,
    /// A private directory that exists; the guest's files go there and the
    /// caller removes it after [`Guest::stop`].
    pub dir: PathBuf,
}

/// What a job installs before anything of its own enters the guest. A guest
/// that has it can be kept, and the next job of the same owner that installs
/// the same starts from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preparation {
    /// Whose job it is: nobody starts from another owner's guest.
    pub owner: String,
    /// Names and sources, in their order.
    pub repositories: Vec<(String, String)>,
    /// Names, in their order.
    pub packages: Vec<String>,
    /// How old what was kept may be.
    pub max_age: Duration,
    /// Whether it is installed again all the same.
    pub fresh: bool,
}

/// What became of [`Guest::keep`].
pub enum Kept {
    /// It could not be kept; the job goes on in it.
    Not,
    /// It was kept and has ended; the job goes on in this one, which is the same.
    As(Box<dyn Guest>),
    /// It has ended, and nothing goes on from there: a new one is needed.
    Lost,
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

    /// Writes files as the image's user, in this order. Directories that are
    /// missing are made, for that user alone. Gives the index of the first that
    /// could not be written; what the guest said of it is in the output.
    ///
    /// # Errors
    /// As [`Guest::exec`].
    async fn put(
        &self,
        files: &[Put<'_>],
        output: &mut dyn Sink,
    ) -> Result<Option<usize>, GuestError> {
        let script = put::script(files);
        let exec = Exec::with_stdin(put::FROM_STDIN, script.as_bytes());
        let code = self.exec(exec, output).await?;
        Ok(put::failed(code, files.len()))
    }

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

    /// How long ago the job's [`Preparation`] was installed in what this guest
    /// was started from; nothing when it still has to be.
    fn prepared(&self) -> Option<Duration> {
        None
    }

    /// Keeps the guest, in which the job's [`Preparation`] was installed and
    /// which nothing else of the job has entered.
    async fn keep(&self) -> Kept {
        Kept::Not
    }

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

    /// Whether the guest wrote more to its disk than it may. It saw an I/O error
    /// then, by its own fault.
    fn disk_limit_reached(&self) -> bool {
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

    async fn put(
        &self,
        files: &[Put<'_>],
        output: &mut dyn Sink,
    ) -> Result<Option<usize>, GuestError> {
        (**self).put(files, output).await
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

    fn prepared(&self) -> Option<Duration> {
        (**self).prepared()
    }

    async fn keep(&self) -> Kept {
        (**self).keep().await
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

    fn disk_limit_reached(&self) -> bool {
        (**self).disk_limit_reached()
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
    /// What to run.
    pub command: Command<'a>,
    /// What the command reads.
    pub stdin: Stdin<'a>,
    /// Where the command's standard error goes.
    pub stderr: Stderr,
}

/// What to run.
#[derive(Debug, Clone, Copy)]
pub enum Command<'a> {
    /// A line for the login shell, in the home directory.
    Line(&'a str),
    /// A program that no shell needs to look at: that alone costs an emulated
    /// guest some twentieth of a second.
    Program {
        /// Where it runs.
        directory: &'a str,
        /// The program, looked for in `PATH` when it has no slash, and its
        /// arguments.
        words: &'a [&'a str],
    },
}

impl Command<'_> {
    /// The same as a line for any login shell.
    #[must_use]
    pub fn line(&self) -> Cow<'_, str> {
        match self {
            Self::Line(line) => Cow::Borrowed(line),
            Self::Program { directory, words } => {
                let words: Vec<String> = words.iter().map(|word| shell_quote(word)).collect();
                let directory = shell_quote(directory);
                Cow::Owned(format!("cd {directory} && exec {}", words.join(" ")))
            }
        }
    }
}

impl<'a> Exec<'a> {
    /// A line with empty standard input, its errors among its output.
    #[must_use]
    pub fn new(line: &'a str) -> Self {
        Self {
            command: Command::Line(line),
            stdin: Stdin::Empty,
            stderr: Stderr::Merged,
        }
    }

    /// The same with these bytes as its standard input.
    #[must_use]
    pub fn with_stdin(line: &'a str, stdin: &'a [u8]) -> Self {
        Self {
            stdin: Stdin::Bytes(stdin),
            ..Self::new(line)
        }
    }

    /// A program, likewise.
    #[must_use]
    pub fn program(directory: &'a str, words: &'a [&'a str]) -> Self {
        Self {
            command: Command::Program { directory, words },
            ..Self::new("")
        }
    }
}

/// Something for [`Guest::put`].
#[derive(Debug, Clone)]
pub enum Put<'a> {
    /// A directory, whether it is there or not.
    Directory {
        /// Absolute.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// A file, in place of what is there.
    File(File<'a>),
}

/// A file for a guest.
#[derive(Clone)]
pub struct File<'a> {
    /// Absolute.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What is in it, which may be a secret.
    pub bytes: Cow<'a, [u8]>,
}

impl fmt::Debug for File<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({:?}, {:o}, …)", self.path, self.mode)
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
    /// The machine took more memory than the guest's and what goes with it, and
    /// was ended for that.
    #[error("the virtual machine took more of the host's memory than it may, and was ended")]
    OutOfMemory,
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
