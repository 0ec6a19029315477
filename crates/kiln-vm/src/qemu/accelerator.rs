//! Whether guests run under KVM here.
//!
//! A `/dev/kvm` that opens proves nothing: there are hosts where it makes QEMU
//! abort, or hang before the kernel's first word. So a kernel is really booted
//! under it, once per boot of the host and version of QEMU, and the answer is
//! remembered.

use std::{
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt, net::unix::pipe, time::timeout};

use crate::{
    namespace::{self, Isolation, Namespace, Process, SYSTEM_PATH},
    tail::Tail,
};

/// A kernel under KVM panics for want of a root file system in half a second.
const BOOT_DEADLINE: Duration = Duration::from_secs(8);
/// What a kernel without a root file system says when all else worked.
const BOOTED: &str = "Kernel panic - not syncing";
/// How much slower emulation is, for the warning.
pub const TCG_WARNING: &str = "guests are emulated, some 10 to 20 times slower than with KVM";

/// How guests of this host's own architecture run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accelerator {
    /// A kernel was seen to boot under KVM.
    Kvm,
    /// Emulation, and why.
    Tcg {
        /// A sentence with the remedy, where there is one.
        reason: String,
    },
}

/// What the question is asked with.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The kiln binary.
    pub helper: PathBuf,
    /// How much apart from the host the probe's QEMU runs.
    pub isolation: Isolation,
    /// A kernel to boot: an image's own, or the host's.
    pub kernel: Option<PathBuf>,
    /// Where the answer is remembered.
    pub cache: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    /// The host's boot and QEMU's version.
    key: String,
    accelerator: Accelerator,
}

impl Accelerator {
    /// Finds out, or remembers.
    pub async fn of_this_host(probe: &Probe) -> Self {
        if let Err(reason) = openable() {
            return Self::Tcg { reason };
        }
        let Some(kernel) = probe.kernel.clone().or_else(host_kernel) else {
            // Not remembered: an image may come.
            return Self::Tcg {
                reason:
                    "no kernel to try KVM with; build an image, or make /boot/vmlinuz-* readable"
                        .into(),
            };
        };
        let key = key().await;
        if let Some(accelerator) = recall(&probe.cache, &key) {
            return accelerator;
        }
        let accelerator = match boot(probe, &kernel).await {
            Ok(()) => Self::Kvm,
            Err(reason) => Self::Tcg { reason },
        };
        remember(&probe.cache, key, &accelerator);
        accelerator
    }
}

fn openable() -> Result<(), String> {
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err("this host has no /dev/kvm: enable virtualisation in its firmware, or nested virtualisation on the host around it".into())
        }
        Err(error) => Err(format!("/dev/kvm can't be opened ({error}): add yourself to the group kvm")),
    }
}

/// The kernel that the host runs, where it may be read.
fn host_kernel() -> Option<PathBuf> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let path = Path::new("/boot").join(format!("vmlinuz-{}", release.trim()));
    std::fs::File::open(&path).ok().map(|_| path)
}

async fn key() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let version = super::command::version(super::command::host_binary()).await;
    format!("{} {}", boot.trim(), version.unwrap_or_default())
}

fn recall(cache: &Path, key: &str) -> Option<Accelerator> {
    let text = std::fs::read(cache).ok()?;
    let remembered: Remembered = serde_json::from_slice(&text).ok()?;
    (remembered.key == key).then_some(remembered.accelerator)
}

fn remember(cache: &Path, key: String, accelerator: &Accelerator) {
    let accelerator = accelerator.clone();
    let written = serde_json::to_vec(&Remembered { key, accelerator })
        .map_err(io::Error::from)
        .and_then(|text| write_whole(cache, &text));
    if let Err(error) = written {
        // It is asked again next time, that's all.
        tracing::debug!(%error, "the accelerator is not remembered");
    }
}

/// Another kiln may be reading.
fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    io::Write::write_all(&mut file, text)?;
    file.persist(path)?;
    Ok(())
}

async fn boot(probe: &Probe, kernel: &Path) -> Result<(), String> {
    let refused = |what: String| format!("KVM was tried and does not work here: {what}");
    let mut config = namespace::Config::new(probe.helper.clone(), probe.isolation);
    config.files.visible = vec![kernel.to_owned()];
    let namespace = Namespace::create(&config).await;
    let namespace = namespace.map_err(|error| refused(error.to_string()))?;
    let (console, stdout) = pipe_pair().map_err(|error| refused(error.to_string()))?;
    let (words, stderr) = pipe_pair().map_err(|error| refused(error.to_string()))?;
    let process = Process {
        argv: probe_command(kernel),
        env: vec![("PATH".into(), SYSTEM_PATH.into())],
        cwd: "/".into(),
        stdout: Some(stdout),
        stderr: Some(stderr),
        fds: Vec::new(),
        limits: super::limits::PROBE,
    };
    let spawned = namespace.spawn(process).await;
    spawned.map_err(|error| refused(error.to_string()))?;
    let mut said = Tail::new();
    let seen = timeout(BOOT_DEADLINE, watch(console, &mut said)).await;
    namespace.destroy().await;
    if said.contains(BOOTED) {
        return Ok(());
    }
    let mut errors = Tail::new();
    let _ = timeout(Duration::from_secs(1), watch(words, &mut errors)).await;
    let errors = errors.to_string();
    let last = errors.lines().next().unwrap_or_default();
    Err(refused(match seen {
        Ok(()) if !last.is_empty() => format!("QEMU ended with `{last}`"),
        Ok(()) => "QEMU ended before the kernel came up".into(),
        Err(_) => format!(
            "a kernel did not come up within {} s",
            BOOT_DEADLINE.as_secs()
        ),
    }))
}

fn probe_command(kernel: &Path) -> Vec<String> {
    let (machine, console) = match std::env::consts::ARCH {
        "x86_64" => ("q35", "ttyS0"),
        "aarch64" => ("virt", "ttyAMA0"),
        _ => ("pseries", "hvc0"),
    };
    let line = format!(
        "{} -M {machine} -accel kvm -cpu host -m 512 -nodefaults -no-user-config -display none -no-reboot -serial stdio -kernel",
        super::command::host_binary()
    );
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    words.push(kernel.display().to_string());
    words.extend(["-append".to_owned(), format!("console={console} panic=-1")]);
    words
}

/// Reads to the end, or until the kernel is known to have come up.
async fn watch(mut from: pipe::Receiver, said: &mut Tail) {
    let mut piece = vec![0; 4096];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        said.push(piece.get(..length).unwrap_or_default());
        if said.contains(BOOTED) {
            return;
        }
    }
}

fn pipe_pair() -> io::Result<(pipe::Receiver, std::os::fd::OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(read)?, write))
}
