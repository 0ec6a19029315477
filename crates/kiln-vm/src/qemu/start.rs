//! From a checked request to a QEMU that runs: the parts that a cold boot, the
//! making of a template and a restore have in common.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex as SyncMutex, atomic::AtomicBool},
    time::{Duration, Instant},
};

use tokio::{net::UnixStream, sync::Mutex, task::JoinHandle, time::timeout};

use super::{
    MIN_DISK_SPACE, QemuMachine,
    command::{self, CommandLine, Hardware, Ram},
    guest::{self, Running},
    limits::Limits,
    qmp::Qmp,
    ready, version,
};
use crate::{
    cgroup,
    image::{
        Image,
        functions::{BootRequest, Functions},
        qcow2,
    },
    machine::{GuestSpec, StartError},
    namespace::{self, Isolation, Namespace, Process, Rlimits, SYSTEM_PATH},
    network::{Network, filter, forward::Forwards, keeper::Keeper},
    ssh::Session,
    tail::Tail,
};

/// How long after its control socket QEMU may take to end.
const EXIT_DEADLINE: Duration = Duration::from_secs(5);

/// A guest's memory on its way into ours.
pub(super) type Loading = JoinHandle<io::Result<Arc<OwnedFd>>>;

/// Where the guest's memory and state come from.
pub(super) struct Origin {
    /// Memory that is more than this QEMU's own. It is loaded while the
    /// namespace is made.
    pub ram: Option<(Loading, Ram)>,
    /// Whether QEMU waits for its devices' state.
    pub incoming: bool,
    /// What the disk's writable layer lies over.
    pub disk: PathBuf,
    /// Directories besides the image's that QEMU has to see.
    pub visible: Vec<PathBuf>,
    /// How large the guest sees it, in bytes.
    pub size: u64,
}

impl Origin {
    /// A boot from the image's disk.
    pub fn cold(image: &Image, size: u64) -> Self {
        Self {
            ram: None,
            incoming: false,
            disk: image.disk(),
            visible: Vec::new(),
            size,
        }
    }
}

/// A QEMU that runs, and what its process says.
pub(super) struct Started {
    pub running: Arc<Running>,
    pub errors: Arc<SyncMutex<Tail>>,
    /// Where the helper in the guest is, if there is one.
    pub port: UnixStream,
}

impl QemuMachine {
    /// Starts QEMU for this guest and leaves it there: booting, or waiting for
    /// its state.
    pub(super) async fn launch(
        &self,
        functions: &Functions,
        request: &BootRequest,
        spec: &GuestSpec,
        origin: Origin,
    ) -> Result<Started, StartError> {
        let (loading, memory) = origin.ram.unzip();
        let line = self.command_line(request, spec, memory, origin.incoming)?;
        let kvm = self.kvm_for(&spec.image);
        let limits = Limits::new(spec, line.memory_mib, memory, origin.size, kvm);
        std::fs::create_dir_all(machine_dir(&spec.dir))
            .map_err(|error| StartError::Host(format!("no directory for QEMU: {error}")))?;
        let ((), namespace) = tokio::try_join!(
            overlay(&origin.disk, origin.size, &spec.dir),
            self.namespace(spec, origin.visible, limits.together)
        )?;
        let ram = match loading {
            Some(loading) => Some(loaded(loading).await?),
            None => None,
        };
        let guest_port = line.guest_port;
        let own = machine_dir(&spec.dir);
        // The rules are loaded: what QEMU does before there is an uplink leads
        // nowhere.
        let ((uplink, forwards), qemu) = tokio::try_join!(
            connect(&namespace, spec, self.isolation),
            execute(&namespace, line, &own, ram, limits.process)
        )?;
        let host_port = match self.isolation {
            Isolation::Namespaces => None,
            Isolation::None => Some(host_port(&qemu.qmp).await?),
        };
        let running = Arc::new(Running {
            namespace: Arc::new(namespace),
            qmp: qemu.qmp,
            console: qemu.console,
            guest_port,
            host_port,
            uplink: Mutex::new(uplink),
            _forwards: forwards,
            functions: functions.clone(),
            image: spec.image.clone(),
            dir: spec.dir.clone(),
            networked: spec.network != Network::None,
            stopping: AtomicBool::new(false),
        });
        Ok(Started {
            running,
            errors: qemu.errors,
            port: qemu.port,
        })
    }

    /// Waits until the guest lets us in.
    pub(super) async fn first_login(
        &self,
        started: &Started,
        state: ready::Guest,
    ) -> Result<Session, StartError> {
        let running = &started.running;
        let mut reason = "its SSH server never answered";
        let (qmp, port) = (&running.qmp, running.guest_port);
        let login = ready::first_login(&**running, qmp, port, state, &mut reason);
        tokio::select! {
            login = timeout(self.boot_deadline, login) => login.map_err(|_| StartError::NoLogin {
                reason,
                detail: text(&running.console),
            }),
            gone = running.gone() => {
                let mut detail = text(&started.errors);
                if detail.is_empty() {
                    detail = text(&running.console);
                }
                Err(StartError::Gone { gone, detail })
            }
        }
    }

    async fn namespace(
        &self,
        spec: &GuestSpec,
        visible: Vec<PathBuf>,
        limits: cgroup::Limits,
    ) -> Result<Namespace, StartError> {
        let mut config = namespace::Config::new(self.helper.clone(), self.isolation);
        config.cgroup = self
            .cgroups
            .clone()
            .map(|cgroups| cgroup::Plan { cgroups, limits });
        config.files.visible = spec.image.files();
        config.files.visible.extend(visible);
        config.files.own = Some(machine_dir(&spec.dir));
        if let (Network::Public { allow }, Isolation::Namespaces) = (&spec.network, self.isolation)
        {
            let rules = filter::ruleset(allow).map_err(|error| {
                StartError::Host(format!("the host's routes can't be read: {error}"))
            })?;
            config.ruleset = Some(rules);
            config.files.resolv_conf = Some(filter::resolv_conf());
        }
        let made = Namespace::create(&config).await;
        made.map_err(|error| StartError::Host(error.to_string()))
    }

    /// QEMU's command line for this guest.
    pub(super) fn command_line(
        &self,
        request: &BootRequest,
        spec: &GuestSpec,
        ram: Option<Ram>,
        incoming: bool,
    ) -> Result<CommandLine, StartError> {
        let overlay = overlay_path(&spec.dir);
        let hardware = Hardware {
            arch: &spec.image.arch,
            kvm: self.kvm_for(&spec.image),
            cpus: spec.cpus,
            memory_mib: spec.memory_mib,
            overlay: &overlay,
            // Without a namespace nothing would hold the guest back.
            networked: spec.network != Network::None && self.isolation == Isolation::Namespaces,
            isolated: self.isolation == Isolation::Namespaces,
            ram,
            incoming,
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
}

async fn loaded(loading: Loading) -> Result<OwnedFd, StartError> {
    let host = |error: io::Error| StartError::Host(format!("the guest's memory: {error}"));
    let memory = loading.await.map_err(io::Error::other).flatten();
    memory.and_then(|memory| memory.try_clone()).map_err(host)
}

/// Tells the operator where a start's time went.
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn lap(&mut self, what: &str) {
        let now = Instant::now();
        let took = now.duration_since(std::mem::replace(&mut self.0, now));
        tracing::info!("{what}: {} ms", took.as_millis());
    }
}

/// What QEMU may write. kiln's own files (sockets, uploads) are beside it, so
/// that nobody inside can put something else in their place.
pub(super) fn machine_dir(dir: &Path) -> PathBuf {
    dir.join("machine")
}

/// The guest's own layer of its disk.
pub(super) fn overlay_path(dir: &Path) -> PathBuf {
    machine_dir(dir).join("disk.qcow2")
}

/// Checks an image's disk; what lies over it is ours.
///
/// Gives its virtual size in bytes.
pub(super) fn check_disk(image: &Image, dir: &Path) -> Result<u64, StartError> {
    let path = image.disk();
    let disk = qcow2::inspect(&path)
        .map_err(|refused| StartError::Image(format!("{} {refused}", path.display())))?;
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
    Ok(disk.virtual_size)
}

/// Puts a writable layer over a disk, which is not opened for that (`-u`): it
/// is a stranger's, and only the QEMU in its namespace reads it.
async fn overlay(disk: &Path, size: u64, dir: &Path) -> Result<(), StartError> {
    let output = tokio::process::Command::new("qemu-img")
        .args(["create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b"])
        .arg(std::path::absolute(disk).unwrap_or_else(|_| disk.to_owned()))
        .arg(overlay_path(dir))
        .arg(size.to_string())
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
    Err(StartError::Host(format!("qemu-img: {}", said.trim())))
}

async fn connect(
    namespace: &Namespace,
    spec: &GuestSpec,
    isolation: Isolation,
) -> Result<(Option<Keeper>, Forwards), StartError> {
    let host = |error: String| StartError::Host(error);
    if spec.network == Network::None || isolation == Isolation::None {
        let none = Forwards::open(namespace, &[], None).await;
        return Ok((None, none.map_err(|error| host(error.to_string()))?));
    }
    let (uplink, forwards) = tokio::join!(
        Keeper::start(namespace),
        Forwards::open(namespace, spec.network.allowed(), spec.farm.as_ref()),
    );
    let forwards = forwards.map_err(|error| host(error.to_string()))?;
    Ok((Some(uplink.map_err(host)?), forwards))
}

/// A QEMU that answers.
struct Qemu {
    qmp: Arc<Qmp>,
    console: Arc<SyncMutex<Tail>>,
    errors: Arc<SyncMutex<Tail>>,
    port: UnixStream,
}

async fn execute(
    namespace: &Namespace,
    line: CommandLine,
    dir: &Path,
    ram: Option<OwnedFd>,
    limits: Rlimits,
) -> Result<Qemu, StartError> {
    let host = |error: io::Error| StartError::Host(format!("a socket for QEMU: {error}"));
    let (control, control_theirs) = socket().map_err(host)?;
    let (console, console_theirs) = socket().map_err(host)?;
    let (errors, errors_theirs) = socket().map_err(host)?;
    let (port, port_theirs) = socket().map_err(host)?;
    let errors = guest::keep_tail(errors);
    let program = line.argv.first().cloned().unwrap_or_default();
    tracing::debug!(command = %line.argv.join(" "), "QEMU");
    let mut fds = vec![control_theirs, console_theirs, port_theirs];
    fds.extend(ram);
    let process = Process {
        argv: line.argv,
        env: vec![("PATH".into(), SYSTEM_PATH.into())],
        cwd: dir.to_owned(),
        stdout: None,
        stderr: Some(errors_theirs),
        fds,
        limits,
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
    match qmp {
        Ok(qmp) => Ok(Qemu {
            qmp,
            console,
            errors,
            port,
        }),
        Err(error) => {
            namespace.destroy().await;
            let said = errors.lock().map(|tail| tail.said()).unwrap_or_default();
            // The image's disk lies behind ours.
            if said.contains("Could not open backing file") {
                return Err(StartError::Image(format!(
                    "the image's disk is damaged{said}"
                )));
            }
            let remark = version::remark(&program).await;
            Err(StartError::Host(format!("{error}{remark}{said}")))
        }
    }
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

/// What the kernel thinks that it can give, in MiB.
pub(super) fn available_memory_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let row = text
        .lines()
        .find_map(|row| row.strip_prefix("MemAvailable:"))?;
    let kib: u64 = row.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024)
}

pub(super) fn text(tail: &Arc<SyncMutex<Tail>>) -> String {
    tail.lock().map(|tail| tail.to_string()).unwrap_or_default()
}
