//! One guest in QEMU.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex as SyncMutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    net::{TcpStream, UnixStream},
    sync::{Mutex, OnceCell},
    task::JoinHandle,
    time::timeout,
};

use super::{
    command::SSH_ADDRESS,
    control::{self, Control},
    qmp::Qmp,
    ready,
    template::{Keepable, RemovedOnDrop},
};
use crate::{
    image::{
        Image,
        functions::{Functions, FunctionsError, GUEST_PORT},
    },
    machine::{Exec, ExitCode, Gone, Guest, GuestError, Kept, Login, Put, Sink},
    namespace::Namespace,
    network::{forward::Forwards, keeper::Keeper},
    session::Session,
    ssh::Dial,
    tail::Tail,
};

/// How long after its connection broke a guest may take to power off, to be
/// told apart from one that only closed the connection.
const POWER_OFF: Duration = Duration::from_secs(20);
/// How long a new login may take: its SSH server or its network may be
/// restarting.
const RELOGIN: Duration = Duration::from_mins(1);
/// How long the question whether a login is fresh may take before it is not.
const FRESHNESS: Duration = Duration::from_secs(20);

/// What makes up a running guest; shared with the tasks that serve it.
pub(super) struct Running {
    pub namespace: Arc<Namespace>,
    pub qmp: Arc<Qmp>,
    pub console: Arc<SyncMutex<Tail>>,
    pub guest_port: u16,
    /// The port on the host where there is no namespace.
    pub host_port: Option<u16>,
    pub uplink: Mutex<Option<Keeper>>,
    /// Carried as long as the guest lives.
    pub _forwards: Forwards,
    pub functions: Functions,
    pub image: Image,
    pub dir: PathBuf,
    /// Whether the guest reaches anything.
    pub networked: bool,
    pub stopping: AtomicBool,
}

impl Running {
    /// Waits for the end of QEMU and says what it was.
    pub async fn gone(&self) -> Gone {
        let status = self.namespace.exited().await;
        let events = self.qmp.last_events().await;
        let panicked = match self.console.lock() {
            Ok(console) => console.contains("Kernel panic - not syncing"),
            Err(_) => false,
        };
        if self.stopping.load(Ordering::Relaxed) {
            Gone::Stopped
        } else if events.panicked || panicked {
            Gone::Panicked
        } else if events.shut_down {
            Gone::PoweredOff
        } else if self.namespace.out_of_memory() {
            tracing::warn!(?status, "QEMU ended: out of its memory limit");
            Gone::OutOfMemory
        } else {
            tracing::warn!(?status, "QEMU ended by itself");
            Gone::Crashed
        }
    }

    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.namespace.destroy().await;
        if let Some(mut uplink) = self.uplink.lock().await.take() {
            uplink.stop().await;
        }
    }
}

#[async_trait]
impl Dial for Running {
    async fn dial(&self) -> Option<TcpStream> {
        match self.host_port {
            Some(port) => TcpStream::connect(("127.0.0.1", port)).await.ok(),
            None => self.namespace.connect(SSH_ADDRESS.into()).await.ok(),
        }
    }
}

/// A guest that lets us in.
pub struct QemuGuest {
    running: Arc<Running>,
    session: SyncMutex<Arc<Session>>,
    /// Sessions that have gone stale. What a job left in the background in one
    /// of them lives on.
    retired: SyncMutex<Vec<Arc<Session>>>,
    /// The socket behind `guest_ssh`, made with its first use.
    control: OnceCell<(PathBuf, JoinHandle<()>)>,
    /// What it was started from.
    from: StartedFrom,
    /// A directory that goes with it.
    dir: OnceLock<RemovedOnDrop>,
    me: std::sync::Weak<Self>,
}

/// What a guest was started from, as far as that matters later.
pub(super) enum StartedFrom {
    /// Its own boot.
    Boot,
    /// A template; its job installs nothing.
    Template,
    /// A template in which the job's packages are, of this age.
    Prepared(Duration),
    /// A template in which they are not, so that the guest can be kept with
    /// them.
    Keepable(SyncMutex<Option<Box<Keepable>>>),
}

impl QemuGuest {
    pub(super) fn new(running: Arc<Running>, session: Session, from: StartedFrom) -> Arc<Self> {
        let session = Arc::new(session);
        // Beside whatever comes first; the answer is wanted before the first
        // task.
        let early = Arc::clone(&session);
        tokio::spawn(async move { early.remember_login().await.map(drop) });
        Arc::new_cyclic(|me| Self {
            running,
            session: SyncMutex::new(session),
            retired: SyncMutex::default(),
            control: OnceCell::new(),
            from,
            dir: OnceLock::new(),
            me: me.clone(),
        })
    }

    /// A session for a script's command; a new one when the last has ended.
    ///
    /// # Errors
    /// [`GuestError`] when no new login succeeds.
    pub async fn session_for_command(&self) -> Result<Arc<Session>, GuestError> {
        if self.session().is_closed() {
            self.fresh_login().await?;
        }
        Ok(self.session())
    }

    /// Whether it is one of many from the same template, and so can be made a
    /// machine of its own again.
    pub(super) fn is_clone(&self) -> bool {
        !matches!(self.from, StartedFrom::Boot)
    }

    /// Nobody but the guest needs this directory.
    pub(super) fn remove_at_end(&self, dir: RemovedOnDrop) {
        // Told once.
        let _ = self.dir.set(dir);
    }

    /// Whether it reaches anything at all.
    pub(super) fn has_network(&self) -> bool {
        self.running.networked
    }

    /// What makes up the guest.
    pub(super) fn running(&self) -> &Arc<Running> {
        &self.running
    }

    /// The way in.
    pub(super) fn session(&self) -> Arc<Session> {
        match self.session.lock() {
            Ok(session) => Arc::clone(&session),
            Err(poisoned) => Arc::clone(&poisoned.into_inner()),
        }
    }

    fn replace_session(&self, session: Session) {
        let (Ok(mut current), Ok(mut retired)) = (self.session.lock(), self.retired.lock()) else {
            return;
        };
        retired.push(std::mem::replace(&mut current, Arc::new(session)));
    }

    /// A lost connection is often the first that is seen of a guest's end.
    async fn explain(&self, error: GuestError) -> GuestError {
        if !matches!(error, GuestError::Connection) {
            return error;
        }
        match timeout(POWER_OFF, self.running.gone()).await {
            Ok(gone) => GuestError::Gone(gone),
            Err(_) => error,
        }
    }

    async fn call(&self, call: &[&str], output: &mut dyn Sink) -> Result<ExitCode, GuestError> {
        let (socket, _) = self
            .control
            .get_or_try_init(|| self.serve_control())
            .await?;
        let running = &self.running;
        let called = running.functions.call(
            call,
            GUEST_PORT,
            &running.image.arch,
            socket,
            &**running,
            output,
        );
        let called = tokio::select! {
            called = called => called,
            gone = running.gone() => return Err(GuestError::Gone(gone)),
        };
        called.map_err(|error| match error {
            FunctionsError::Output(error) => GuestError::Output(error),
            other => {
                tracing::error!(error = %other, "functions");
                GuestError::Host
            }
        })
    }

    async fn serve_control(&self) -> Result<(PathBuf, JoinHandle<()>), GuestError> {
        let socket = control_path(&self.running.dir);
        let only = control::OneGuest(self.me.clone());
        let server = Control::bind(&socket, Arc::new(only)).map_err(|error| {
            tracing::error!(%error, "the socket for guest_ssh");
            GuestError::Host
        })?;
        Ok((socket, tokio::spawn(server.serve())))
    }
}

#[async_trait]
impl Guest for QemuGuest {
    async fn exec(&self, exec: Exec<'_>, output: &mut dyn Sink) -> Result<ExitCode, GuestError> {
        let session = self.session();
        let ran = tokio::select! {
            ran = session.exec(exec, output) => ran,
            gone = self.running.gone() => Err(GuestError::Gone(gone)),
        };
        match ran {
            Ok(code) => Ok(code),
            Err(error) => Err(self.explain(error).await),
        }
    }

    async fn put(
        &self,
        files: &[Put<'_>],
        output: &mut dyn Sink,
    ) -> Result<Option<usize>, GuestError> {
        let session = self.session_for_command().await?;
        let put = tokio::select! {
            put = session.put(files, output) => put,
            gone = self.running.gone() => Err(GuestError::Gone(gone)),
        };
        match put {
            Ok(failed) => Ok(failed),
            Err(error) => Err(self.explain(error).await),
        }
    }

    async fn add_repository(
        &self,
        name: &str,
        source: &str,
        output: &mut dyn Sink,
    ) -> Result<ExitCode, GuestError> {
        let port = GUEST_PORT.to_string();
        self.call(&["add_repository", &port, name, source], output)
            .await
    }

    async fn install(
        &self,
        packages: &[String],
        output: &mut dyn Sink,
    ) -> Result<ExitCode, GuestError> {
        let port = GUEST_PORT.to_string();
        let mut call = vec!["install", &port];
        call.extend(packages.iter().map(String::as_str));
        self.call(&call, output).await
    }

    fn prepared(&self) -> Option<Duration> {
        match self.from {
            StartedFrom::Prepared(age) => Some(age),
            StartedFrom::Boot | StartedFrom::Template | StartedFrom::Keepable(_) => None,
        }
    }

    async fn keep(&self) -> Kept {
        let StartedFrom::Keepable(keepable) = &self.from else {
            return Kept::Not;
        };
        let keepable = keepable
            .lock()
            .ok()
            .and_then(|mut keepable| keepable.take());
        match keepable {
            Some(keepable) => keepable.keep(self).await,
            None => Kept::Not,
        }
    }

    async fn fresh_login(&self) -> Result<(), GuestError> {
        let session = self.session();
        if let Ok(Ok(true)) = timeout(FRESHNESS, session.is_fresh()).await {
            return Ok(());
        }
        let mut reason = "";
        let running = &self.running;
        let (qmp, port) = (&running.qmp, running.guest_port);
        let login = ready::first_login(&**running, qmp, port, ready::Guest::IsUp, &mut reason);
        let session = tokio::select! {
            session = timeout(RELOGIN, login) => session.map_err(|_| GuestError::Login)?,
            gone = running.gone() => return Err(GuestError::Gone(gone)),
        };
        // An answer that takes longer than a login counts as none: the next
        // question then finds another one, and a new login is due.
        let _ = timeout(FRESHNESS, session.remember_login()).await;
        self.replace_session(Session::Ssh(session));
        Ok(())
    }

    async fn dial(&self) -> Result<TcpStream, GuestError> {
        self.running.dial().await.ok_or(GuestError::Connection)
    }

    async fn gone(&self) -> Gone {
        self.running.gone().await
    }

    fn disk_full(&self) -> bool {
        self.running.qmp.events().disk_full
    }

    fn disk_limit_reached(&self) -> bool {
        self.running.qmp.events().disk_limit
    }

    fn login(&self) -> &Login {
        &self.running.image.login
    }

    async fn stop(&self) {
        if let Some((_, server)) = self.control.get() {
            server.abort();
        }
        self.running.stop().await;
    }
}

impl Drop for QemuGuest {
    fn drop(&mut self) {
        if let Some((_, server)) = self.control.get() {
            server.abort();
        }
    }
}

/// The socket behind `guest_ssh`.
pub(super) fn control_path(dir: &Path) -> PathBuf {
    dir.join("control")
}

/// Keeps the end of what comes on a stream, for as long as it comes.
pub(super) fn keep_tail(stream: UnixStream) -> Arc<SyncMutex<Tail>> {
    let tail = Arc::new(SyncMutex::new(Tail::new()));
    let kept = Arc::clone(&tail);
    tokio::spawn(async move {
        let mut stream = stream;
        let mut piece = vec![0; 8192];
        while let Ok(length @ 1..) = tokio::io::AsyncReadExt::read(&mut stream, &mut piece).await {
            if let Ok(mut kept) = kept.lock() {
                kept.push(piece.get(..length).unwrap_or_default());
            }
        }
    });
    tail
}
