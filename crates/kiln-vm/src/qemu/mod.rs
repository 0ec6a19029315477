//! The machine that boots images in QEMU.
//!
//! ```text
//!  find the image ─► functions: boot ─► check, complete ─► namespace, rules,
//!  uplink ─► exec QEMU ─► control socket ─► first login ─► guest
//! ```
//!
//! * `functions` only says what it would start; kiln executes QEMU itself, in
//!   namespaces of its own ([`crate::namespace`]).
//! * The image's disk is read-only; a guest writes to a layer of its own that
//!   goes with it.
//! * No port of the host is used where the host allows namespaces.

pub mod accelerator;
mod arguments;
mod command;
pub mod control;
mod guest;
pub mod qmp;
mod ready;

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex as SyncMutex, atomic::AtomicBool},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::{net::UnixStream, sync::Mutex, time::timeout};

use crate::{
    image::{
        Image,
        functions::{BootRequest, Functions},
        qcow2,
    },
    machine::{Guest, GuestSpec, Machine, StartError},
    namespace::{self, Isolation, Namespace, Process, SYSTEM_PATH},
    network::{Network, filter, forward::Forwards, uplink::Uplink},
    tail::Tail,
};
pub use command::binary;
use command::{CommandLine, Hardware};
pub use guest::QemuGuest;
use guest::Running;
use qmp::Qmp;

/// Free space that a guest's disk needs at the least, in bytes.
pub const MIN_DISK_SPACE: u64 = 256 << 20;

/// How long after its control socket QEMU may take to end.
const EXIT_DEADLINE: Duration = Duration::from_secs(5);

/// Boots images.
#[derive(Debug, Clone)]
pub struct QemuMachine {
    /// The kiln binary.
    pub helper: PathBuf,
    /// How much apart from the host guests run.
    pub isolation: Isolation,
    /// Whether guests of the host's architecture run under KVM.
    pub kvm: bool,
    /// How long a guest may take until it lets us in.
    pub boot_deadline: Duration,
}

#[async_trait]
impl Machine for QemuMachine {
    async fn start(&self, spec: &GuestSpec) -> Result<Box<dyn Guest>, StartError> {
        let guest = self.start_guest(spec).await?;
        Ok(Box::new(guest))
    }
}

impl QemuMachine {
    /// The runner of an image's functions.
    #[must_use]
    pub fn functions(&self, base: &Path, dir: &Path) -> Functions {
        Functions {
            helper: self.helper.clone(),
            isolation: self.isolation,
            base: base.to_owned(),
            dir: dir.to_owned(),
            kvm: self.kvm,
        }
    }

    /// As [`Machine::start`], for callers that need a guest of this kind.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_guest(&self, spec: &GuestSpec) -> Result<Arc<QemuGuest>, StartError> {
        let functions = Functions {
            kvm: self.kvm_for(&spec.image),
            ..self.functions(&spec.image.base, &spec.image.dir)
        };
        let mut watch = Stopwatch::start();
        let (request, (), namespace) = tokio::try_join!(
            boot_request(&functions, &spec.image),
            prepare_disk(&spec.image, &spec.dir),
            self.namespace(spec),
        )?;
        watch.lap("functions, disk and namespace");
        let line = self.command_line(&request, spec, functions.kvm)?;
        let (uplink, forwards) = connect(&namespace, &spec.network, self.isolation).await?;
        watch.lap("uplink");
        let launched = launch(namespace, line, spec).await?;
        watch.lap("QEMU");
        let console = Arc::clone(&launched.console);
        let host_port = match self.isolation {
            Isolation::Namespaces => None,
            Isolation::None => Some(host_port(&launched.qmp).await?),
        };
        let running = Arc::new(Running {
            namespace: launched.namespace,
            qmp: launched.qmp,
            console: launched.console,
            guest_port: launched.guest_port,
            host_port,
            uplink: Mutex::new(uplink),
            forwards,
            functions,
            image: spec.image.clone(),
            dir: spec.dir.clone(),
            stopping: AtomicBool::new(false),
        });
        match self.first_login(&running, &launched.errors).await {
            Ok(session) => {
                watch.lap("boot and login");
                Ok(QemuGuest::new(running, session))
            }
            Err(error) => {
                running.stop().await;
                tracing::debug!(console = %text(&console), "the guest did not start");
                Err(error)
            }
        }
    }

    fn kvm_for(&self, image: &Image) -> bool {
        self.kvm && kiln_core::arch::same(&image.arch, std::env::consts::ARCH)
    }

    async fn namespace(&self, spec: &GuestSpec) -> Result<Namespace, StartError> {
        let (mut ruleset, mut resolv_conf) = (None, None);
        if let (Network::Public { allow }, Isolation::Namespaces) = (&spec.network, self.isolation)
        {
            let rules = filter::ruleset(allow).map_err(|error| {
                StartError::Host(format!("the host's routes can't be read: {error}"))
            })?;
            let path = spec.dir.join("resolv.conf");
            std::fs::write(&path, filter::resolv_conf())
                .map_err(|error| StartError::Host(format!("{}: {error}", path.display())))?;
            ruleset = Some(rules);
            resolv_conf = Some(path);
        }
        Namespace::create(&namespace::Config {
            helper: self.helper.clone(),
            isolation: self.isolation,
            ruleset,
            resolv_conf,
        })
        .await
        .map_err(|error| StartError::Host(error.to_string()))
    }

    fn command_line(
        &self,
        request: &BootRequest,
        spec: &GuestSpec,
        kvm: bool,
    ) -> Result<CommandLine, StartError> {
        let overlay = overlay(&spec.dir);
        let hardware = Hardware {
            arch: &spec.image.arch,
            kvm,
            cpus: spec.cpus,
            memory_mib: spec.memory_mib,
            overlay: &overlay,
            // Without a namespace nothing would hold the guest back.
            networked: spec.network != Network::None && self.isolation == Isolation::Namespaces,
            isolated: self.isolation == Isolation::Namespaces,
        };
        let line = command::build(request, &spec.image.dir, &hardware)
            .map_err(|reason| StartError::Image(format!("{}: {reason}", spec.image.name)))?;
        match available_memory_mib() {
            Some(available) if u64::from(line.memory_mib) > available => {
                Err(StartError::Host(format!(
                    "the guest wants {} MiB of memory, {available} MiB are available; --memory asks for less",
                    line.memory_mib
                )))
            }
            _ => Ok(line),
        }
    }

    async fn first_login(
        &self,
        running: &Arc<Running>,
        errors: &Arc<SyncMutex<Tail>>,
    ) -> Result<crate::ssh::Session, StartError> {
        let mut reason = "its SSH server never answered";
        let login = ready::first_login(&**running, &running.qmp, running.guest_port, &mut reason);
        tokio::select! {
            login = timeout(self.boot_deadline, login) => login.map_err(|_| StartError::NoLogin {
                reason,
                detail: text(&running.console),
            }),
            gone = running.gone() => {
                let mut detail = text(errors);
                if detail.is_empty() {
                    detail = text(&running.console);
                }
                Err(StartError::Gone { gone, detail })
            }
        }
    }
}

/// Tells the operator where a start's time went.
struct Stopwatch(Instant);

impl Stopwatch {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn lap(&mut self, what: &str) {
        let now = Instant::now();
        let took = now.duration_since(std::mem::replace(&mut self.0, now));
        tracing::info!("{what}: {} ms", took.as_millis());
    }
}

async fn boot_request(functions: &Functions, image: &Image) -> Result<BootRequest, StartError> {
    let request = functions.boot(&image.arch).await;
    request.map_err(|error| StartError::Image(error.to_string()))
}

fn overlay(dir: &Path) -> PathBuf {
    dir.join("disk.qcow2")
}

/// Checks the image's disk and puts a writable layer over it.
async fn prepare_disk(image: &Image, dir: &Path) -> Result<(), StartError> {
    let disk = image.disk();
    qcow2::inspect(&disk)
        .map_err(|refused| StartError::Image(format!("{} {refused}", disk.display())))?;
    let free = rustix::fs::statvfs(dir)
        .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
        .unwrap_or(u64::MAX);
    if free < MIN_DISK_SPACE {
        return Err(StartError::Host(format!(
            "{}: {} MiB are free, a guest needs {} MiB at the least",
            dir.display(),
            free >> 20,
            MIN_DISK_SPACE >> 20
        )));
    }
    let output = tokio::process::Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .arg(std::path::absolute(&disk).unwrap_or_else(|_| disk.clone()))
        .arg(overlay(dir))
        .env_clear()
        .env("PATH", SYSTEM_PATH)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| StartError::Host(format!("qemu-img: {error}; install qemu-utils")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // Without a translation: it was given no locale.
    if said.contains("Could not open backing image") {
        return Err(StartError::Image(format!(
            "{} is damaged: {}",
            disk.display(),
            said.trim()
        )));
    }
    Err(StartError::Host(format!("qemu-img: {}", said.trim())))
}

async fn connect(
    namespace: &Namespace,
    network: &Network,
    isolation: Isolation,
) -> Result<(Option<Uplink>, Forwards), StartError> {
    let host = |error: String| StartError::Host(error);
    if *network == Network::None || isolation == Isolation::None {
        let none = Forwards::open(namespace, &[]).await;
        return Ok((None, none.map_err(|error| host(error.to_string()))?));
    }
    let (uplink, forwards) = tokio::join!(
        Uplink::start(namespace.init_pid()),
        Forwards::open(namespace, network.allowed()),
    );
    let forwards = forwards.map_err(|error| host(error.to_string()))?;
    Ok((Some(uplink.map_err(host)?), forwards))
}

/// A QEMU that runs, before anybody is in its guest.
struct Launched {
    namespace: Arc<Namespace>,
    qmp: Arc<Qmp>,
    console: Arc<SyncMutex<Tail>>,
    errors: Arc<SyncMutex<Tail>>,
    guest_port: u16,
}

async fn launch(
    namespace: Namespace,
    line: CommandLine,
    spec: &GuestSpec,
) -> Result<Launched, StartError> {
    let host = |error: io::Error| StartError::Host(format!("a socket for QEMU: {error}"));
    let (control, control_theirs) = socket().map_err(host)?;
    let (console, console_theirs) = socket().map_err(host)?;
    let (errors, errors_theirs) = socket().map_err(host)?;
    let errors = guest::keep_tail(errors);
    let program = line.argv.first().cloned().unwrap_or_default();
    tracing::debug!(command = %line.argv.join(" "), "QEMU");
    let process = Process {
        argv: line.argv,
        env: vec![("PATH".into(), SYSTEM_PATH.into())],
        cwd: spec.dir.clone(),
        stdout: None,
        stderr: Some(errors_theirs),
        fds: vec![control_theirs, console_theirs],
    };
    namespace
        .spawn(process)
        .await
        .map_err(|error| StartError::Host(error.to_string()))?;
    let console = guest::keep_tail(console);
    let ended = |status| format!("{program} ended at once ({})", exit_words(status));
    let qmp = tokio::select! {
        qmp = Qmp::connect(control) => match qmp {
            Ok(qmp) => Ok(qmp),
            // Its socket ends before its status is known.
            Err(error) => Err(match timeout(EXIT_DEADLINE, namespace.exited()).await {
                Ok(status) => ended(status),
                Err(_) => error.to_string(),
            }),
        },
        status = namespace.exited() => Err(ended(status)),
    };
    let qmp = match qmp {
        Ok(qmp) => qmp,
        Err(error) => {
            namespace.destroy().await;
            let said = errors.lock().map(|tail| tail.said()).unwrap_or_default();
            return Err(StartError::Host(format!("{error}{said}")));
        }
    };
    Ok(Launched {
        namespace: Arc::new(namespace),
        qmp,
        console,
        errors,
        guest_port: line.guest_port,
    })
}

fn exit_words(status: Option<u8>) -> String {
    match status {
        // setpriv and the shells say 127 for a program that is not there.
        Some(127) => "it is not installed; see `kiln doctor`".into(),
        Some(status) => format!("status {status}"),
        None => "its namespace is gone".into(),
    }
}

fn socket() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}

async fn host_port(qmp: &Qmp) -> Result<u16, StartError> {
    let table = qmp.monitor("info usernet").await;
    let table = table.map_err(|error| StartError::Host(error.to_string()))?;
    ready::forwarded_port(&table)
        .ok_or_else(|| StartError::Host("QEMU does not tell the guest's SSH port".into()))
}

fn available_memory_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let row = text
        .lines()
        .find_map(|row| row.strip_prefix("MemAvailable:"))?;
    let kib: u64 = row.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024)
}

fn text(tail: &Arc<SyncMutex<Tail>>) -> String {
    tail.lock().map(|tail| tail.to_string()).unwrap_or_default()
}
