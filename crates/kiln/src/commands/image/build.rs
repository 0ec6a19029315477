//! `kiln image build`: runs the `genimg` of an image's directory.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
};

use anyhow::Context as _;
use kiln_vm::{machine::GuestSpec, network::Network};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
};

use super::{BOOT_DEADLINE, recipe};
use crate::{
    cli::{DEFAULT_CPUS, ImageBuildArgs},
    commands::run::interrupt,
    exit::{Exit, Failure},
    host::{apt, machine, paths, scratch::Scratch},
    ui,
};

/// How much of what the tools said is shown when they fail.
const SHOWN_LINES: usize = 15;
/// More is only read and dropped.
const MAX_NOISE: usize = 4 << 20;

/// Runs the command.
pub async fn run(args: &ImageBuildArgs) -> Result<Exit, Failure> {
    let images = paths::absolute(&paths::images(&args.images)?)?;
    let name = recipe::resolve(&args.name);
    let dir = images.join(&name);
    let known = recipe::names().contains(&name);
    // An image of the user's own has its own genimg.
    if !known && !dir.join("genimg").is_file() {
        return Err(Failure::usage(format!(
            "kiln has no recipe for {}; it has {}. An image of your own needs a genimg in {}",
            args.name,
            recipe::names().join(", "),
            dir.display()
        )));
    }
    let arch = args
        .arch
        .clone()
        .unwrap_or_else(|| default_arch().to_owned());
    if args.if_missing && dir.join(&arch).join("root.img.qcow2").is_file() {
        return Ok(Exit::Success);
    }
    if known {
        let distro = name.split('/').next().unwrap_or(&name);
        recipe::write(&images, distro).with_context(|| images.display().to_string())?;
    }
    let cancel = interrupt::cancel();
    let exit = generate(args, &dir, &arch, cancel.clone()).await?;
    if known && exit == Exit::Success {
        recipe::link(&images, &name).with_context(|| images.display().to_string())?;
    }
    if exit != Exit::Success {
        return Ok(exit);
    }
    match interrupt::unless(cancel, freeze(&images, &name, &arch)).await {
        Err(failure) if failure.exit == Exit::Interrupted => return Err(failure),
        Err(failure) => ui::warning(&format!("no template was made: {}", failure.message)),
        Ok(()) => {}
    }
    Ok(exit)
}

/// Makes the template that the first run would have to make.
async fn freeze(images: &Path, name: &str, arch: &str) -> Result<(), Failure> {
    let host = machine::look(images, BOOT_DEADLINE).await?;
    let image = machine::find_image(&host.machine, images, name, Some(arch)).await?;
    let scratch = Scratch::create()?;
    let spec = GuestSpec {
        preparation: None,
        image,
        memory_mib: None,
        cpus: DEFAULT_CPUS,
        disk_mib: None,
        network: Network::Public { allow: Vec::new() },
        farm: None,
        dir: scratch.path(),
    };
    host.machine
        .prepare_template(&spec)
        .await
        .map_err(Failure::host)
}

/// Debian's name for the host's architecture.
fn default_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

async fn generate(
    args: &ImageBuildArgs,
    dir: &Path,
    arch: &str,
    mut cancel: watch::Receiver<bool>,
) -> Result<Exit, Failure> {
    ui::note(&format!(
        "building {} ({arch}) in {}",
        args.name,
        dir.display()
    ));
    let mut child = genimg(args, dir, arch)
        .spawn()
        .with_context(|| format!("{}/genimg", dir.display()))?;
    let (status, noise) = tokio::select! {
        done = follow(&mut child) => done?,
        () = interrupt::asked(&mut cancel) => {
            end(&mut child).await;
            return Ok(Exit::Interrupted);
        }
    };
    if status.success() {
        return Ok(Exit::Success);
    }
    let noise = String::from_utf8_lossy(&noise);
    let lines: Vec<&str> = noise
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let last = lines
        .get(lines.len().saturating_sub(SHOWN_LINES)..)
        .unwrap_or_default();
    Err(Failure::host(format!(
        "{}\nkiln: the image was not built (genimg: {status}); what was there before is untouched",
        last.join("\n")
    )))
}

fn genimg(args: &ImageBuildArgs, dir: &Path, arch: &str) -> Command {
    let mut command = Command::new(dir.join("genimg"));
    command.arg(arch).current_dir(dir).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C is passed on as a request to end, once, and not by the terminal.
    command.process_group(0).kill_on_drop(true);
    if let Some(mirror) = &args.mirror {
        command.env("KILN_MIRROR", mirror);
    }
    if let Some(proxy) = apt::proxy() {
        command.env("KILN_APT_PROXY", proxy);
    }
    command
}

/// Shows what the recipe says and keeps the end of what its tools say.
async fn follow(child: &mut Child) -> Result<(ExitStatus, Vec<u8>), Failure> {
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let progress = async {
        let mut lines = stdout.map(|stdout| BufReader::new(stdout).lines());
        while let Some(Ok(Some(line))) = next(lines.as_mut()).await {
            ui::note(&line);
        }
    };
    let listening = async {
        let mut noise = Vec::new();
        let mut piece = vec![0; 16 * 1024];
        let Some(mut stderr) = stderr else {
            return noise;
        };
        while let Ok(length @ 1..) = stderr.read(&mut piece).await {
            noise.extend_from_slice(piece.get(..length).unwrap_or_default());
            if noise.len() > MAX_NOISE {
                noise.drain(..MAX_NOISE / 2);
            }
        }
        noise
    };
    let ((), noise, status) = tokio::join!(progress, listening, child.wait());
    Ok((status.context("genimg")?, noise))
}

type Lines = tokio::io::Lines<BufReader<tokio::process::ChildStdout>>;

async fn next(lines: Option<&mut Lines>) -> Option<std::io::Result<Option<String>>> {
    match lines {
        Some(lines) => Some(lines.next_line().await),
        None => None,
    }
}

/// The recipe removes what it has begun when it is asked to end.
async fn end(child: &mut Child) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let _ = child.wait().await;
}
