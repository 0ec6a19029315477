//! QEMU by hand, as builds.sr.ht's worker has it: without a namespace, a port
//! of the host, a new `ssh` for everything.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::farm::{CPUS, Farm};

/// How long builds.sr.ht's worker waits between two attempts to get in.
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);
/// As often as it connects before the first task: the tasks' scripts, the
/// environment, the secrets.
const STEPS: usize = 5;
/// Of the image's own; as its `functions` has it.
const MEMORY: &str = "2048";
/// How long anything here may take.
const DEADLINE: Duration = Duration::from_mins(3);

/// A guest of the farm's image. Dropping it kills it.
pub struct Bare {
    qemu: Child,
    port: u16,
    functions: PathBuf,
}

impl Bare {
    /// Starts it on the same disk, kernel and accelerator as kiln's guests.
    pub fn start(farm: &Farm) -> Result<Self> {
        let image = &farm.image;
        let port = free_port()?;
        let kernel = image.kernel().context("the image has no kernel")?;
        let files = kernel.parent().context("a kernel is in a directory")?;
        let functions = image.base.join("debian/functions");
        let text = std::fs::read_to_string(&functions)?;
        let words = text.split("cmdline='").nth(1);
        let words = words.and_then(|rest| rest.split('\'').next());
        let (accelerator, processor) = match farm.machine.kvm {
            true => ("kvm", "host"),
            false => ("tcg,thread=multi", "max"),
        };
        let disk = image.disk();
        let qemu = Command::new("qemu-system-x86_64")
            .args([
                "-nodefaults",
                "-display",
                "none",
                "-M",
                "q35",
                "-qmp",
                "stdio",
            ])
            .args(["-accel", accelerator, "-cpu", processor, "-m", MEMORY])
            .args(["-smp", &CPUS.to_string()])
            .args(["-append", words.context("`functions` has no cmdline")?])
            .arg("-kernel")
            .arg(&kernel)
            .arg("-initrd")
            .arg(files.join("initrd.img"))
            .arg("-drive")
            .arg(format!(
                "file={},format=qcow2,snapshot=on,if=virtio",
                disk.display()
            ))
            .arg("-netdev")
            .arg(format!("user,id=n,hostfwd=tcp:127.0.0.1:{port}-:22"))
            .args(["-device", "virtio-net-pci,netdev=n,romfile="])
            .args(["-device", "virtio-rng-pci"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self {
            qemu,
            port,
            functions,
        })
    }

    /// Waits until QEMU's control socket says something.
    pub async fn greeting(&mut self) -> Result<()> {
        let stdout = self.qemu.stdout.as_mut().context("asked once")?;
        let mut line = String::new();
        timeout(DEADLINE, BufReader::new(stdout).read_line(&mut line)).await??;
        ensure!(line.contains("QMP"), "QEMU said {line}");
        Ok(())
    }

    /// Waits until it lets us in, trying each second.
    pub async fn boots(&self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE {
            let attempt = self.ssh("true").stdin(Stdio::null()).status().await?;
            if attempt.success() {
                return Ok(());
            }
            sleep(BETWEEN_ATTEMPTS).await;
        }
        bail!("the guest never let us in")
    }

    /// The image's `install`, with a plain `ssh`.
    pub async fn install(&self, packages: &[&str]) -> Result<()> {
        let script = format!(
            "wd=.; . \"$0\"; guest_ssh() {{ {} \"$@\"; }}; install {} \"$@\"",
            SSH.join(" "),
            self.port
        );
        let output = Command::new("sh")
            .args(["-euc", &script])
            .arg(&self.functions)
            .args(packages)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(DEADLINE, output).await??;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "the install failed: {said}");
        Ok(())
    }

    /// What a command says.
    pub async fn output(&self, command: &str) -> Result<Vec<u8>> {
        let output = timeout(DEADLINE, self.ssh(command).output()).await??;
        ensure!(output.status.success(), "{command} failed in the guest");
        Ok(output.stdout)
    }

    fn ssh(&self, command: &str) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(&SSH[1..])
            .args(["-o", "ConnectTimeout=10", "-p", &self.port.to_string()])
            .args(["build@127.0.0.1", command])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        ssh
    }
}

const SSH: [&str; 10] = [
    "ssh",
    "-q",
    "-F",
    "none",
    "-o",
    "StrictHostKeyChecking=no",
    "-o",
    "UserKnownHostsFile=/dev/null",
    "-o",
    "BatchMode=yes",
];

/// From the start of QEMU to the first byte of a task, with these packages
/// installed before.
pub async fn first_byte(farm: &Farm, packages: &[&str]) -> Result<Duration> {
    let begun = Instant::now();
    let guest = Bare::start(farm)?;
    guest.boots().await?;
    for _ in 0..STEPS {
        let mut step = guest.ssh("cat >/dev/null");
        let status = timeout(DEADLINE, step.status()).await??;
        ensure!(status.success(), "a step failed");
    }
    if !packages.is_empty() {
        guest.install(packages).await?;
    }
    let mut task = guest.ssh("echo hello").stdout(Stdio::piped()).spawn()?;
    let mut stdout = task.stdout.take().context("asked once")?;
    timeout(DEADLINE, stdout.read_u8()).await??;
    Ok(begun.elapsed())
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
