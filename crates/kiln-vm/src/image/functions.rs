//! Runs an image's `functions`.
//!
//! The file is somebody's shell script and not trusted: each run is an `sh` of
//! its own in a namespace without network, with an empty environment, a
//! deadline and bounded output. `boot` in it does not start QEMU: `_boot` only
//! reports what it would have been given ([`BootRequest`]); kiln checks that,
//! completes it and executes QEMU itself ([`crate::qemu`]).

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{io::AsyncReadExt, net::unix::pipe, time::timeout};

use crate::{
    cgroup::{self, Cgroups},
    machine::{ExitCode, Sink},
    namespace::{self, Isolation, Namespace, Process, Rlimits, SYSTEM_PATH},
    ssh::Dial,
    tail::Tail,
};

/// A query prints a few words.
const QUERY_DEADLINE: Duration = Duration::from_secs(20);
/// More than any command line.
const MAX_REPORT: usize = 64 * 1024;
/// The port under which `functions` knows its guest, in its own namespace.
pub const GUEST_PORT: u16 = 8022;

/// Of the script and all that it starts. It prints a few words, or talks to a
/// guest; its files are a small one in memory.
const LIMITS: Rlimits = Rlimits {
    file_size: 64 << 20,
    data: 256 << 20,
    descriptors: 256,
    processes: 128,
};
/// The same together. Memory has room for its files too.
const TOGETHER: cgroup::Limits = cgroup::Limits {
    memory: 512 << 20,
    processes: 128,
    processors: 2,
};

const PRELUDE: &str = include_str!("functions.sh");

/// The variables that a `functions` file sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables {
    /// The architecture for manifests that name none.
    pub default_arch: Option<String>,
    /// QEMU's name, when not the architecture's usual one.
    pub qemu: Option<String>,
    /// The options of the disk's `-drive`.
    pub driveopts: Option<String>,
    /// Memory in MiB.
    pub memory: Option<u32>,
    /// The guest's SSH port.
    pub guestport: Option<u16>,
}

/// What `boot` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BootRequest {
    /// The file's variables.
    pub variables: Variables,
    /// The arguments of `_boot`.
    pub arguments: Vec<String>,
}

/// Why `functions` gave no answer. For the operator.
#[derive(Debug, thiserror::Error)]
pub enum FunctionsError {
    /// It didn't end in time.
    #[error("{0}: `functions` did not end within {QUERY_DEADLINE:?}; does it loop?")]
    Deadline(PathBuf),
    /// It said too much.
    #[error("{0}: `functions` reports more than {MAX_REPORT} bytes")]
    Flood(PathBuf),
    /// It ended without calling `_boot`.
    #[error("{dir}: `boot` of `functions` ended with {status} without calling `_boot`{said}")]
    NoBoot {
        /// The image.
        dir: PathBuf,
        /// The exit status.
        status: u8,
        /// The end of its standard error.
        said: String,
    },
    /// It failed.
    #[error("{dir}: `functions` ended with {status}{said}")]
    Failed {
        /// The image.
        dir: PathBuf,
        /// The exit status.
        status: u8,
        /// The end of its standard error.
        said: String,
    },
    /// It set a variable to what that can't be.
    #[error("{dir}: `functions` sets {name} to `{value}`, which is no number")]
    Variable {
        /// The image.
        dir: PathBuf,
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// The host's side failed.
    #[error(transparent)]
    Namespace(#[from] namespace::Error),
    /// The sink took no more.
    #[error("the output could not be stored: {0}")]
    Output(std::io::Error),
}

/// Runs the functions of one image.
#[derive(Debug, Clone)]
pub struct Functions {
    /// The kiln binary: the namespace's helper and the other end of `guest_ssh`.
    pub helper: PathBuf,
    /// How much `sh` is apart from the host.
    pub isolation: Isolation,
    /// The images directory.
    pub base: PathBuf,
    /// The image's directory.
    pub dir: PathBuf,
    /// Whether guests of this architecture run under KVM here.
    pub kvm: bool,
    /// Where the script has a cgroup.
    pub cgroups: Option<Cgroups>,
}

impl Functions {
    /// The variables that the file sets.
    ///
    /// # Errors
    /// [`FunctionsError`].
    pub async fn variables(&self) -> Result<Variables, FunctionsError> {
        let (report, status, said) = self.query("_kiln_query", "").await?;
        if status != 0 {
            let dir = self.dir.clone();
            return Err(FunctionsError::Failed { dir, status, said });
        }
        Ok(self.parse(&report)?.0.variables)
    }

    /// What `boot` asks for.
    ///
    /// # Errors
    /// [`FunctionsError`].
    pub async fn boot(&self, arch: &str) -> Result<BootRequest, FunctionsError> {
        let (report, status, said) = self.query("boot", arch).await?;
        match self.parse(&report)? {
            (request, true) => Ok(request),
            (_, false) => Err(FunctionsError::NoBoot {
                dir: self.dir.clone(),
                status,
                said,
            }),
        }
    }

    /// Calls a function that works on a guest, its output into the sink.
    /// `port` is the one under which its script knows the guest;
    /// `control` is the socket of the guest's [`crate::qemu::control`]; `guest`
    /// leads to the guest's SSH server for a plain `ssh -p`.
    ///
    /// # Errors
    /// [`FunctionsError`].
    pub async fn call(
        &self,
        call: &[&str],
        port: u16,
        arch: &str,
        control: &Path,
        guest: &dyn Dial,
        output: &mut dyn Sink,
    ) -> Result<ExitCode, FunctionsError> {
        let namespace = self.namespace(Some(control)).await?;
        let inside = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Without namespaces the port would be the host's.
        let listener = match self.isolation {
            Isolation::Namespaces => Some(namespace.listen(inside).await?),
            Isolation::None => None,
        };
        let (mut stdout, stderr) = self
            .start(&namespace, call, port, arch, Some(control))
            .await?;
        let noise = tokio::spawn(read_tail(stderr));
        let mut log = vec![0; 32 * 1024];
        let mut status = None;
        loop {
            tokio::select! {
                read = stdout.read(&mut log) => match read {
                    Ok(length) if length > 0 => {
                        let piece = log.get(..length).unwrap_or_default();
                        output.write(piece).await.map_err(FunctionsError::Output)?;
                    }
                    _ => break,
                },
                ended = namespace.exited(), if status.is_none() => {
                    status = Some(ended);
                    // What it left in the background would hold the pipes.
                    namespace.destroy().await;
                }
                stream = accept(listener.as_ref()) => if let Some(stream_in) = guest.dial().await {
                    tokio::spawn(splice(stream, stream_in));
                },
            }
        }
        let status = match status {
            Some(status) => status,
            None => namespace.exited().await,
        };
        namespace.destroy().await;
        let status = status.ok_or(namespace::Error::Gone)?;
        let tail = noise.await.unwrap_or_default();
        if status != 0 {
            tracing::info!(function = call.first(), status, said = %tail, "functions");
        }
        Ok(ExitCode(status.into()))
    }

    async fn query(&self, what: &str, arch: &str) -> Result<(Vec<u8>, u8, String), FunctionsError> {
        let namespace = self.namespace(None).await?;
        let (stdout, stderr) = self
            .start(&namespace, &[what], GUEST_PORT, arch, None)
            .await?;
        let flooded = tokio::sync::Notify::new();
        let report = async {
            let mut report = Vec::new();
            // An error here is the end of the script.
            let _ = stdout
                .take(MAX_REPORT as u64 + 1)
                .read_to_end(&mut report)
                .await;
            if report.len() > MAX_REPORT {
                flooded.notify_one();
            }
            report
        };
        let ended = async {
            let status = tokio::select! {
                status = timeout(QUERY_DEADLINE, namespace.exited()) => status,
                () = flooded.notified() => Ok(None),
            };
            // What it left in the background would hold the pipes for ever.
            namespace.destroy().await;
            status
        };
        let (report, tail, status) = tokio::join!(report, read_tail(stderr), ended);
        let status = status.map_err(|_| FunctionsError::Deadline(self.dir.clone()))?;
        if report.len() > MAX_REPORT {
            return Err(FunctionsError::Flood(self.dir.clone()));
        }
        Ok((report, status.unwrap_or(u8::MAX), tail.said()))
    }

    /// The script sees the images and the other end of `guest_ssh`.
    async fn namespace(&self, control: Option<&Path>) -> Result<Namespace, namespace::Error> {
        let mut config = namespace::Config::new(self.helper.clone(), self.isolation);
        config.files.visible = super::files_of(&self.base, &self.dir);
        config.files.visible.push(self.helper.clone());
        config.files.visible.extend(control.map(Path::to_owned));
        config.cgroup = self.cgroups.clone().map(|cgroups| cgroup::Plan {
            cgroups,
            limits: TOGETHER,
        });
        Namespace::create(&config).await
    }

    async fn start(
        &self,
        namespace: &Namespace,
        call: &[&str],
        port: u16,
        arch: &str,
        control: Option<&Path>,
    ) -> Result<(pipe::Receiver, pipe::Receiver), FunctionsError> {
        let (stdout, stdout_read) = output_pipe()?;
        let (stderr, stderr_read) = output_pipe()?;
        let mut argv = ["sh", "-c", PRELUDE, "kiln"].map(str::to_owned).to_vec();
        argv.extend(call.iter().map(|&word| word.to_owned()));
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let accel = if self.kvm { "kvm" } else { "tcg" };
        let mut env = vec![
            ("PATH".to_owned(), SYSTEM_PATH.to_owned()),
            ("arch".to_owned(), arch.to_owned()),
            ("port".to_owned(), port.to_string()),
            ("base".to_owned(), text(&self.base)),
            ("_kiln".to_owned(), text(&self.helper)),
            ("_kiln_accel".to_owned(), accel.to_owned()),
        ];
        if let Some(control) = control {
            env.push(("_kiln_socket".to_owned(), text(control)));
        }
        let process = Process {
            argv,
            env,
            cwd: self.dir.clone(),
            stdout: Some(stdout),
            stderr: Some(stderr),
            fds: Vec::new(),
            limits: LIMITS,
        };
        namespace.spawn(process).await?;
        Ok((stdout_read, stderr_read))
    }

    /// Reads `name=value` records, each ended by a zero byte.
    pub(crate) fn parse(&self, report: &[u8]) -> Result<(BootRequest, bool), FunctionsError> {
        let mut request = BootRequest::default();
        let mut booted = false;
        for record in report.split(|&byte| byte == 0) {
            let record = String::from_utf8_lossy(record);
            let Some((name, value)) = record.split_once('=') else {
                continue;
            };
            let value = value.to_owned();
            let variables = &mut request.variables;
            match name {
                "argument" => request.arguments.push(value),
                "booted" => booted = true,
                "qemu" => variables.qemu = Some(value),
                "driveopts" => variables.driveopts = Some(value),
                "default_arch" => variables.default_arch = Some(value),
                "MEMORY" => variables.memory = Some(self.number("MEMORY", value)?),
                "guestport" => variables.guestport = Some(self.number("guestport", value)?),
                _ => {}
            }
        }
        Ok((request, booted))
    }

    fn number<T: std::str::FromStr>(
        &self,
        name: &'static str,
        value: String,
    ) -> Result<T, FunctionsError> {
        value.parse().map_err(|_| FunctionsError::Variable {
            dir: self.dir.clone(),
            name,
            value,
        })
    }
}

fn output_pipe() -> Result<(OwnedFd, pipe::Receiver), namespace::Error> {
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(std::io::Error::from)?;
    Ok((write, pipe::Receiver::from_owned_fd(read)?))
}

async fn accept(listener: Option<&tokio::net::TcpListener>) -> tokio::net::TcpStream {
    loop {
        match listener {
            None => std::future::pending().await,
            Some(listener) => {
                if let Ok((stream, _)) = listener.accept().await {
                    return stream;
                }
                // No descriptor is left: there may be one later.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn read_tail(mut pipe: pipe::Receiver) -> Tail {
    let mut tail = Tail::new();
    let mut piece = vec![0; 4096];
    while let Ok(length @ 1..) = pipe.read(&mut piece).await {
        tail.push(piece.get(..length).unwrap_or_default());
    }
    tail
}

async fn splice(mut one: tokio::net::TcpStream, mut other: tokio::net::TcpStream) {
    // Whoever ends it first, the other one notices.
    let _ = tokio::io::copy_bidirectional(&mut one, &mut other).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_report_makes_it_panic(report in "((argument|booted|qemu|driveopts|MEMORY|guestport|x)=?|-?[0-9]{1,12}|[\u{0}]|.){0,60}") {
            let functions = Functions {
                cgroups: None,
                helper: PathBuf::new(),
                isolation: Isolation::None,
                base: PathBuf::new(),
                dir: PathBuf::new(),
                kvm: false,
            };
            if let Ok((request, _)) = functions.parse(report.as_bytes()) {
                let whole = request.arguments.iter().all(|word| !word.contains('\0'));
                prop_assert!(whole);
            }
        }
    }
}
