//! A place of its own for a guest or for an image's `functions`: user, mount,
//! pid, ipc, uts and network namespaces, made by a small helper that stays in
//! them as their init.
//!
//! ```text
//!  kiln ──control socket──► helper (pid 1 inside) ──► QEMU, or sh
//!    ▲                         │
//!    └── descriptors ◄─────────┘  connections and listeners made inside
//! ```
//!
//! * The helper is the kiln binary again, with [`HELPER_COMMAND`] as its first
//!   argument ([`helper::main`]).
//! * It has one way out: the control socket. When kiln closes it, or dies in
//!   whatever way, the helper exits, and the kernel kills everything inside.
//! * It opens connections inside and passes the descriptors out, so nothing of
//!   a guest is reachable on the host by a port.
//! * [`Isolation::None`] is the same helper without namespaces, for hosts that
//!   forbid them: the process inside dies with the helper all the same.

pub mod helper;
mod netlink;
pub(crate) mod protocol;
mod rlimits;
mod root;

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
};

use tokio::{
    io::AsyncReadExt,
    net::UnixStream,
    process::{Child, ChildStderr, Command},
    sync::{Mutex, mpsc, watch},
    time::{Duration, timeout},
};

use crate::cgroup::{self, Cgroup};
pub use protocol::Files;
use protocol::{Numbered, Reply, Request};
pub use rlimits::Rlimits;

/// The hidden first argument that makes the kiln binary a helper.
pub const HELPER_COMMAND: &str = "__namespace";
/// The same for the helper's second stage, which is the init.
pub const INIT_COMMAND: &str = "__namespace-init";

/// The helper's exit status when the host forbids namespaces.
const FORBIDDEN: u8 = 77;
/// Making namespaces takes some milliseconds, nft some tens.
const SET_UP_DEADLINE: Duration = Duration::from_secs(30);

/// How much the place is apart from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Namespaces of every kind.
    Namespaces,
    /// None: for hosts that forbid user namespaces.
    None,
}

/// What to make.
#[derive(Debug, Clone)]
pub struct Config {
    /// The kiln binary.
    pub helper: PathBuf,
    /// How much apart.
    pub isolation: Isolation,
    /// Rules for nft, loaded before anything else can run inside.
    pub ruleset: Option<String>,
    /// What is to be seen of the host.
    pub files: Files,
    /// The cgroup of all that runs inside; that of kiln when absent.
    pub cgroup: Option<cgroup::Plan>,
}

impl Config {
    /// A place without rules, that sees nothing of the host but its programs.
    #[must_use]
    pub fn new(helper: PathBuf, isolation: Isolation) -> Self {
        Self {
            helper,
            isolation,
            ruleset: None,
            files: Files::default(),
            cgroup: None,
        }
    }
}

/// A process to start inside.
pub struct Process {
    /// The program and its arguments. `{fdN}` in an argument becomes the
    /// number of descriptor N of `fds`.
    pub argv: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Its standard output; nowhere when absent.
    pub stdout: Option<OwnedFd>,
    /// Its standard error; nowhere when absent.
    pub stderr: Option<OwnedFd>,
    /// Further descriptors that it inherits.
    pub fds: Vec<OwnedFd>,
    /// What it may take.
    pub limits: Rlimits,
}

/// How the process inside ended: an exit code, 128 + N for signal N.
pub type ExitStatus = u8;

/// Why a namespace could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host forbids user namespaces.
    #[error("this host forbids user namespaces: {0}")]
    Forbidden(String),
    /// The helper said so.
    #[error("{0}")]
    Helper(String),
    /// The helper is gone.
    #[error("the namespace's helper is gone")]
    Gone,
    /// The socket to the helper failed.
    #[error("namespace helper: {0}")]
    Io(#[from] io::Error),
}

/// Replies with their numbers; never more than there were requests.
struct Replies {
    receiver: mpsc::UnboundedReceiver<(Numbered<Reply>, Option<OwnedFd>)>,
    last: u64,
}

/// A place made by a helper. Dropping it kills everything inside.
pub struct Namespace {
    socket: Arc<UnixStream>,
    /// One request at a time.
    replies: Mutex<Replies>,
    exited: watch::Receiver<Option<ExitStatus>>,
    reader: tokio::task::JoinHandle<()>,
    outer: Mutex<Child>,
    init_pid: u32,
    /// Dropped last: only what is empty can be removed.
    cgroup: Option<Arc<Cgroup>>,
}

impl Namespace {
    /// Makes the place and waits until its rules are loaded.
    ///
    /// # Errors
    /// [`Error::Forbidden`] where the host has no user namespaces for us,
    /// [`Error::Helper`] when nft or a mount refused.
    pub async fn create(config: &Config) -> Result<Self, Error> {
        let (ours, theirs) = protocol::socketpair()?;
        let isolation = match config.isolation {
            Isolation::Namespaces => "full",
            Isolation::None => "none",
        };
        let cgroup = config.cgroup.as_ref().and_then(make_cgroup).map(Arc::new);
        let mut outer = Command::new(&config.helper)
            .args([HELPER_COMMAND, isolation])
            .args(cgroup.iter().flat_map(|cgroup| cgroup.dirs()))
            .env_clear()
            .env("PATH", SYSTEM_PATH)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = outer.stderr.take();
        let socket = Arc::new(protocol::register(ours)?);
        let (reply_tx, receiver) = mpsc::unbounded_channel();
        let (exit_tx, exited) = watch::channel(None);
        let reader = tokio::spawn(read_replies(Arc::clone(&socket), reply_tx, exit_tx));
        let mut namespace = Self {
            socket,
            replies: Mutex::new(Replies { receiver, last: 0 }),
            exited,
            reader,
            outer: Mutex::new(outer),
            init_pid: 0,
            cgroup,
        };
        match timeout(SET_UP_DEADLINE, namespace.set_up(config)).await {
            Ok(Ok(pid)) => {
                namespace.init_pid = pid;
                Ok(namespace)
            }
            Ok(Err(Error::Gone | Error::Io(_))) => Err(namespace.why_gone(stderr).await),
            Ok(Err(other)) => Err(other),
            Err(_) => Err(Error::Helper("its set-up did not end in time".into())),
        }
    }

    async fn set_up(&self, config: &Config) -> Result<u32, Error> {
        let rules = config.ruleset.as_deref().map(in_memory).transpose()?;
        let setup = Request::Setup {
            rules: rules.is_some(),
            files: config.files.clone(),
        };
        let fds: Vec<BorrowedFd<'_>> = rules.iter().map(AsFd::as_fd).collect();
        match self.request(&setup, &fds).await? {
            (Reply::Ready { pid }, _) => Ok(pid),
            _ => Err(Error::Gone),
        }
    }

    /// The helper ends before it can answer when the kernel refuses it
    /// something; it says what on its standard error.
    async fn why_gone(&self, stderr: Option<ChildStderr>) -> Error {
        let mut said = Vec::new();
        if let Some(stderr) = stderr {
            let mut reading = stderr.take(4096);
            let _ = timeout(SET_UP_DEADLINE, reading.read_to_end(&mut said)).await;
        }
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        let status = timeout(SET_UP_DEADLINE, async {
            self.outer.lock().await.wait().await
        })
        .await;
        match status {
            Ok(Ok(status)) if status.code() == Some(FORBIDDEN.into()) => Error::Forbidden(said),
            _ => Error::Helper(format!("the namespace's helper ended: {said}")),
        }
    }

    /// The init's process id as the host sees it; an uplink attaches to it.
    #[must_use]
    pub fn init_pid(&self) -> u32 {
        self.init_pid
    }

    /// The cgroup of all that is inside, where there is one.
    pub(crate) fn cgroup(&self) -> Option<Arc<Cgroup>> {
        self.cgroup.clone()
    }

    /// Whether the kernel has ended something inside for the memory that it
    /// took. False where that is not limited.
    #[must_use]
    pub fn out_of_memory(&self) -> bool {
        self.cgroup
            .as_ref()
            .is_some_and(|cgroup| cgroup.out_of_memory())
    }

    /// Starts the one process of this place.
    ///
    /// # Errors
    /// When it can't be executed.
    pub async fn spawn(&self, process: Process) -> Result<(), Error> {
        let mut fds: Vec<BorrowedFd<'_>> = Vec::new();
        fds.extend(process.stdout.as_ref().map(AsFd::as_fd));
        fds.extend(process.stderr.as_ref().map(AsFd::as_fd));
        fds.extend(process.fds.iter().map(AsFd::as_fd));
        let request = Request::Spawn {
            argv: process.argv,
            env: process.env,
            cwd: process.cwd,
            stdout: process.stdout.is_some(),
            stderr: process.stderr.is_some(),
            limits: process.limits,
        };
        self.request(&request, &fds).await.map(drop)
    }

    /// Connects to a loopback address inside.
    ///
    /// # Errors
    /// When nobody listens there, or the place is gone.
    pub async fn connect(&self, address: SocketAddr) -> Result<tokio::net::TcpStream, Error> {
        let stream = std::net::TcpStream::from(self.fd(&Request::Connect { address }).await?);
        stream.set_nonblocking(true)?;
        Ok(tokio::net::TcpStream::from_std(stream)?)
    }

    /// Listens on a loopback address inside.
    ///
    /// # Errors
    /// When the address is taken, or the place is gone.
    pub async fn listen(&self, address: SocketAddr) -> Result<tokio::net::TcpListener, Error> {
        let listener = std::net::TcpListener::from(self.fd(&Request::Listen { address }).await?);
        listener.set_nonblocking(true)?;
        Ok(tokio::net::TcpListener::from_std(listener)?)
    }

    /// Waits until the process inside has ended. `None`: the whole place went
    /// with it.
    pub async fn exited(&self) -> Option<ExitStatus> {
        let mut exited = self.exited.clone();
        let status = exited.wait_for(Option::is_some).await;
        status.ok().and_then(|status| *status)
    }

    /// Kills everything inside and waits until it is gone.
    pub async fn destroy(&self) {
        // The helper sees the end of its socket.
        let _ = rustix::net::shutdown(self.socket.as_fd(), rustix::net::Shutdown::Both);
        let _ = self.outer.lock().await.wait().await;
    }

    async fn fd(&self, request: &Request) -> Result<OwnedFd, Error> {
        self.request(request, &[]).await?.1.ok_or(Error::Gone)
    }

    async fn request(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Option<OwnedFd>), Error> {
        let mut replies = self.replies.lock().await;
        replies.last += 1;
        let number = replies.last;
        let message = Numbered {
            number,
            message: request,
        };
        protocol::send_async(&self.socket, &message, fds).await?;
        loop {
            match replies.receiver.recv().await {
                None => return Err(Error::Gone),
                // Somebody stopped waiting for this one.
                Some((reply, _)) if reply.number != number => {}
                Some((reply, fd)) => {
                    return match reply.message {
                        Reply::Failed { message } => Err(Error::Helper(message)),
                        message => Ok((message, fd)),
                    };
                }
            }
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.reader.abort();
        let _ = rustix::net::shutdown(self.socket.as_fd(), rustix::net::Shutdown::Both);
    }
}

/// A host that has cgroups and makes none now (there may be too many) still
/// runs guests.
fn make_cgroup(plan: &cgroup::Plan) -> Option<Cgroup> {
    let made = plan.cgroups.create(&plan.limits);
    made.inspect_err(|error| tracing::warn!(%error, "no cgroup for a guest"))
        .ok()
}

/// Where programs of the host are looked for, whatever our own environment.
pub const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A text as a file, for a process that reads it.
fn in_memory(text: &str) -> io::Result<OwnedFd> {
    use io::{Seek as _, Write as _};
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::memfd_create("rules", flags)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

async fn read_replies(
    socket: Arc<UnixStream>,
    replies: mpsc::UnboundedSender<(Numbered<Reply>, Option<OwnedFd>)>,
    exited: watch::Sender<Option<ExitStatus>>,
) {
    // Any failure ends the task; both channels then tell that the helper is gone.
    while let Ok(Some((reply, fds))) = protocol::receive_async::<Numbered<Reply>>(&socket).await {
        if let Reply::Exited { status } = reply.message {
            exited.send_replace(Some(status));
        } else if replies.send((reply, fds.into_iter().next())).is_err() {
            return;
        }
    }
}
