//! `kiln image control`: builds.sr.ht's `control IMAGE …`, for scripts and
//! `build.yml` files that call it (reference: builds.sr.ht's images/control).
//!
//! `boot` is the process that has the guest; the others reach it by a socket
//! that is named by the port. Upstream's ports are the host's, so a plain
//! `ssh -p PORT build@localhost` works here too.

use std::{
    fs::OpenOptions, io::ErrorKind, net::Ipv4Addr, os::unix::fs::OpenOptionsExt as _,
    path::PathBuf, process::Stdio, sync::Arc, time::Duration,
};

use async_trait::async_trait;
use kiln_vm::{
    image::Image,
    machine::Guest,
    qemu::{
        QemuGuest, QemuMachine,
        control::{Control, client},
    },
    ssh::{Dial, connect_private},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::{
    BOOT_DEADLINE,
    check::{self, Show},
    hosted::Hosted,
};
use crate::{
    cli::ControlArgs,
    commands::run::interrupt,
    exit::{Exit, Failure},
    host::{machine, paths},
    ui,
};

/// What upstream calls a QEMU that stays in the foreground.
const FOREGROUND: &str = "qemu";
/// The answer of a process that ended before it gave one.
const LOST: u8 = 255;
/// How long a process may take to end when its guest has.
const ENDING: Duration = Duration::from_secs(10);
/// How often it is looked whether something has happened.
const LOOK: Duration = Duration::from_millis(50);

/// Runs the command.
pub async fn run(args: &ControlArgs) -> Result<Exit, Failure> {
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["boot", arch, port] => boot_in_background(args, arch, parse_port(port)?).await,
        ["boot", arch, port, means] if *means == FOREGROUND => {
            boot(args, arch, parse_port(port)?).await
        }
        ["boot", arch, port, _] => boot_in_background(args, arch, parse_port(port)?).await,
        ["cleanup", port] => cleanup(parse_port(port)?).await,
        ["install", port, packages @ ..] if !packages.is_empty() => {
            let call = call(args, parse_port(port)?, "install", packages);
            interrupt::unless(interrupt::cancel(), call).await
        }
        ["add-repo", port, name, source] => {
            let words = [*name, *source];
            let call = call(args, parse_port(port)?, "add_repository", &words);
            interrupt::unless(interrupt::cancel(), call).await
        }
        ["sanity-check"] => check::run(&args.images, &args.image, None, &args.allow).await,
        ["ssh", port, command @ ..] if !command.is_empty() => {
            let mut words = vec!["ssh", "-p", port, "build@localhost"];
            words.extend(command);
            ask(parse_port(port)?, &words).await
        }
        _ => Err(Failure::usage(
            "control takes boot ARCH PORT [MEANS], cleanup PORT, install PORT PACKAGE…, add-repo PORT NAME SOURCE, sanity-check, or ssh PORT COMMAND…",
        )),
    }
}

fn parse_port(text: &str) -> Result<u16, Failure> {
    text.parse()
        .map_err(|_| Failure::usage(format!("`{text}` is no port")))
}

fn socket(port: u16) -> Result<PathBuf, Failure> {
    Ok(paths::control()?.join(format!("{port}.sock")))
}

/// What a guest in the background says: nobody's terminal is held for it. It
/// stays when the guest did not end as it was told to.
fn said(port: u16) -> Result<PathBuf, Failure> {
    Ok(paths::control()?.join(format!("{port}.log")))
}

async fn find(args: &ControlArgs, arch: Option<&str>) -> Result<(QemuMachine, Image), Failure> {
    let images = paths::images(&args.images)?;
    let host = machine::look(&images, BOOT_DEADLINE).await?;
    let image = machine::find_image(&host.machine, &images, &args.image, arch).await?;
    Ok((host.machine, image))
}

/// Boots a guest and has it until it ends, by `cleanup` or by itself.
async fn boot(args: &ControlArgs, arch: &str, port: u16) -> Result<Exit, Failure> {
    let cancel = interrupt::cancel();
    let looking = async {
        let (machine, image) = find(args, Some(arch)).await?;
        let network = super::network(&image, &args.allow).await?;
        Ok(Hosted::new(machine, image, network))
    };
    let hosted = interrupt::unless(cancel.clone(), looking).await?;
    let path = socket(port)?;
    claim(&path)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|error| Failure::host(format!("port {port}: {error}")))?;
    let server = Control::bind(&path, Arc::clone(&hosted) as _)
        .map_err(|error| Failure::host(format!("{}: {error}", path.display())))?;
    let server = tokio::spawn(server.serve());
    let ended = live(&hosted, arch, port, listener, cancel).await;
    server.abort();
    let _ = std::fs::remove_file(&path);
    if ended.is_ok() {
        let _ = std::fs::remove_file(said(port)?);
    }
    ended.map_err(Failure::host)
}

/// From a guest's boot to its end. The port is free then.
async fn live(
    hosted: &Hosted,
    arch: &str,
    port: u16,
    listener: TcpListener,
    mut cancel: watch::Receiver<bool>,
) -> Result<Exit, String> {
    let mut forwards = JoinSet::new();
    let forward = |guest: Arc<QemuGuest>| {
        forwards.spawn(forward(listener, guest));
    };
    // What is interrupted goes on to its end too: only then nothing of the
    // guest is left.
    let interrupted = async {
        interrupt::asked(&mut cancel).await;
        hosted.stop_all().await;
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = hosted.boot_until_end(arch, port, forward) => ended,
        () = interrupted => Ok(()),
    };
    forwards.shutdown().await;
    if *cancel.borrow() {
        return Ok(Exit::Interrupted);
    }
    ended.map(|()| Exit::Success)
}

/// A socket that nobody answers is left from a process that was killed.
fn claim(path: &std::path::Path) -> Result<(), Failure> {
    if let Some(dir) = path.parent() {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut private = std::fs::DirBuilder::new();
        let made = private.recursive(true).mode(0o700).create(dir);
        made.map_err(|error| Failure::host(format!("{}: {error}", dir.display())))?;
    }
    if path.exists() {
        if connect_private(path).is_ok() {
            return Err(Failure::usage("a guest has this port already"));
        }
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

async fn forward(listener: TcpListener, guest: Arc<QemuGuest>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let guest = Arc::clone(&guest);
        tokio::spawn(async move {
            if let Ok(mut inside) = guest.dial().await {
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut inside).await;
            }
        });
    }
}

/// As upstream's Docker means: returns when the guest has been started; this
/// binary goes on as a process of its own until `cleanup`.
async fn boot_in_background(args: &ControlArgs, arch: &str, port: u16) -> Result<Exit, Failure> {
    let path = socket(port)?;
    claim(&path)?;
    let mut command = tokio::process::Command::new(paths::this_program()?);
    command.args(["image", "control"]);
    if let Some(images) = &args.images.images {
        command.arg("--images").arg(images);
    }
    for address in &args.allow {
        command.arg("--allow").arg(address);
    }
    let said = said(port)?;
    let log = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&said);
    let log = log.map_err(|error| Failure::host(format!("{}: {error}", said.display())))?;
    let mut child = command
        .args([&args.image, "boot", arch, &port.to_string(), FOREGROUND])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(Failure::host)?;
    loop {
        tokio::select! {
            status = child.wait() => {
                let status = status.map_err(Failure::host)?;
                let why = std::fs::read_to_string(&said).unwrap_or_default();
                let _ = std::fs::remove_file(&said);
                return Err(Failure::host(format!("the guest did not start ({status})\n{}", why.trim_end())));
            }
            () = tokio::time::sleep(LOOK) => {}
        }
        if path.exists() {
            return Ok(Exit::Success);
        }
    }
}

/// Ends a guest. When this has ended another one can have the port.
async fn cleanup(port: u16) -> Result<Exit, Failure> {
    let words = ["cleanup".to_owned(), port.to_string()];
    let (request, stdin) = client::parse(&words).map_err(Failure::usage)?;
    let path = socket(port)?;
    match client::run(&path, &request, stdin).await {
        Ok(0 | LOST) => {}
        Ok(status) => return Ok(Exit::Other(status)),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => return Err(no_guest(port, &error)),
    }
    // The process that has the guest ends with it, its answer given or not.
    let gone = async {
        while path.exists() {
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(ENDING, gone).await {
        Ok(()) => Ok(Exit::Success),
        Err(_) => Err(Failure::host(format!(
            "the guest with the port {port} was asked to end, and the process that has it did not"
        ))),
    }
}

/// Passes words on to the process that has the guest.
async fn ask(port: u16, words: &[&str]) -> Result<Exit, Failure> {
    let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    let (request, stdin) = client::parse(&words).map_err(Failure::usage)?;
    let status = client::run(&socket(port)?, &request, stdin).await;
    let status = status.map_err(|error| no_guest(port, &error))?;
    Ok(if status == 0 {
        Exit::Success
    } else {
        Exit::Other(status)
    })
}

fn no_guest(port: u16, error: &std::io::Error) -> Failure {
    let said = said(port)
        .ok()
        .and_then(|path| std::fs::read_to_string(path).ok());
    let last = said.as_deref().and_then(|said| said.lines().last());
    let last = last.map_or_else(String::new, |line| format!("; the last one said: {line}"));
    Failure::usage(format!(
        "no guest has the port {port} ({error}); `kiln image control IMAGE boot ARCH {port}` starts one{last}"
    ))
}

async fn call(
    args: &ControlArgs,
    port: u16,
    function: &str,
    words: &[&str],
) -> Result<Exit, Failure> {
    let path = socket(port)?;
    connect_private(&path).map_err(|error| no_guest(port, &error))?;
    let (machine, image) = find(args, None).await?;
    let functions = machine.functions(&image.base, &image.dir);
    let number = port.to_string();
    let mut call = vec![function, number.as_str()];
    call.extend(words);
    let outside = HostPort(port);
    let status = functions
        .call(&call, port, &image.arch, &path, &outside, &mut Show)
        .await;
    let status = status.map_err(Failure::host)?;
    if status.success() {
        return Ok(Exit::Success);
    }
    ui::error(&format!(
        "{function} of {} ended with {}",
        args.image, status.0
    ));
    Ok(Exit::Failed)
}

/// The way to a guest that another process has.
struct HostPort(u16);

#[async_trait]
impl Dial for HostPort {
    async fn dial(&self) -> Option<TcpStream> {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.0)).await.ok()
    }
}
