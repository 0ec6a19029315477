//! A guest of the dummy machine: the host's bash in a directory.
//!
//! Each guest has a *holder*, a bash that waits for the end of its standard
//! input, then kills whatever carries the guest's mark in its environment or is
//! of its process group. [`Guest::stop`], dropping the guest and the death of
//! this process all end that input, so there is one way to clean up.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpStream, unix::pipe},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{oneshot, watch},
};

use super::{Call, Dummy, Keep};
use crate::machine::{
    Exec, ExitCode, Gone, Guest, GuestError, GuestSpec, Kept, Login, Sink, Stderr, Stdin,
};

const HOLDER: &str = include_str!("holder.sh");
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The exit code by which the word `cut` asks for its effect.
const CUT: u32 = 197;

pub(super) struct DummyGuest {
    machine: Dummy,
    spec: GuestSpec,
    login: Login,
    mark: String,
    group: i32,
    path: String,
    /// Exists once the word `full` was said.
    full: PathBuf,
    /// Exists once the word `overfill` was said.
    overfull: PathBuf,
    gone: watch::Receiver<Option<Gone>>,
    stop: Mutex<Option<oneshot::Sender<()>>>,
}

impl DummyGuest {
    pub(super) async fn start(machine: Dummy, spec: &GuestSpec) -> std::io::Result<Self> {
        let dir = fs::canonicalize(&spec.dir)?;
        let dir = dir.to_str().ok_or(std::io::ErrorKind::InvalidFilename)?;
        let mark = format!("KILN_DUMMY={dir}");
        let mut holder = Command::new("bash")
            .args(["-c", HOLDER, "holder", dir, &mark])
            .args(&machine.words)
            .env_clear()
            .env("PATH", PATH)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (Some(input), Some(output)) = (holder.stdin.take(), holder.stdout.take()) else {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        };
        let mut output = BufReader::new(output).lines();
        output
            .next_line()
            .await?
            .ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let group = holder.id().and_then(|id| i32::try_from(id).ok());
        let group = group.ok_or(std::io::ErrorKind::NotFound)?;
        let (stop, stopped) = oneshot::channel();
        let (tell, gone) = watch::channel(None);
        tokio::spawn(hold(holder, input, output, stopped, tell));
        Ok(Self {
            machine,
            spec: spec.clone(),
            login: Login {
                home: format!("{dir}/home"),
                ..spec.image.login.clone()
            },
            mark,
            group,
            path: format!("{dir}/words:{PATH}"),
            full: Path::new(dir).join("full"),
            overfull: Path::new(dir).join("overfull"),
            gone,
            stop: Mutex::new(Some(stop)),
        })
    }

    /// Notes the call and fails when the guest is gone or goes at it.
    async fn asked(&self, call: Call) -> Result<(), GuestError> {
        if self.machine.note(call) {
            self.run(Exec::new("vanish"), &mut Vec::new()).await?;
        }
        self.alive()
    }

    fn alive(&self) -> Result<(), GuestError> {
        match *self.gone.borrow() {
            Some(gone) => Err(gone.into()),
            None => Ok(()),
        }
    }

    /// A process of the guest whose output can be read from the pipe.
    fn spawn(&self, exec: &Exec<'_>) -> std::io::Result<(Child, pipe::Receiver)> {
        let (reader, writer) = std::io::pipe()?;
        let stderr = match exec.stderr {
            Stderr::Merged => writer.try_clone()?.into(),
            Stderr::Dropped => Stdio::null(),
        };
        let stdin = match exec.stdin {
            Stdin::Empty => Stdio::null(),
            Stdin::Bytes(_) | Stdin::Reader(_) => Stdio::piped(),
        };
        let (name, value) = self.mark.split_once('=').unwrap_or_default();
        let child = Command::new("bash")
            .args(["-c", &exec.command.line()])
            .env_clear()
            .env(name, value)
            .env("PATH", &self.path)
            .env("HOME", &self.login.home)
            .env("USER", "build")
            .env("LOGNAME", "build")
            .current_dir(&self.login.home)
            .process_group(self.group)
            .stdin(stdin)
            .stdout(writer)
            .stderr(stderr)
            .spawn()?;
        Ok((child, pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?))
    }

    async fn run(&self, exec: Exec<'_>, sink: &mut dyn Sink) -> Result<ExitCode, GuestError> {
        self.alive()?;
        let (mut child, mut output) = self.spawn(&exec).map_err(|_| GuestError::Host)?;
        let input = child.stdin.take();
        let code = {
            let pump = pump(&mut child, &mut output, sink);
            let feed = feed(input, exec.stdin);
            tokio::pin!(feed, pump);
            let mut fed = false;
            loop {
                tokio::select! {
                    () = &mut feed, if !fed => fed = true,
                    code = &mut pump => break code?,
                    gone = self.gone() => return Err(gone.into()),
                }
            }
        };
        // Whoever was left in the background must find its output open.
        tokio::spawn(async move { tokio::io::copy(&mut output, &mut tokio::io::sink()).await });
        self.alive()?;
        if code.0 == CUT {
            return Err(GuestError::Connection);
        }
        Ok(code)
    }
}

#[async_trait]
impl Guest for DummyGuest {
    async fn exec(&self, exec: Exec<'_>, output: &mut dyn Sink) -> Result<ExitCode, GuestError> {
        self.asked(Call::Exec(exec.command.line().into_owned()))
            .await?;
        self.run(exec, output).await
    }

    async fn add_repository(
        &self,
        name: &str,
        source: &str,
        output: &mut dyn Sink,
    ) -> Result<ExitCode, GuestError> {
        self.asked(Call::AddRepository(name.to_owned(), source.to_owned()))
            .await?;
        if source.starts_with("no-such") {
            say(output, &format!("E: {source} is no repository\n")).await?;
            return Ok(ExitCode(2));
        }
        say(output, &format!("added {name}\n")).await?;
        Ok(ExitCode(0))
    }

    async fn install(
        &self,
        packages: &[String],
        output: &mut dyn Sink,
    ) -> Result<ExitCode, GuestError> {
        self.asked(Call::Install(packages.to_vec())).await?;
        for package in packages {
            if package.starts_with("no-such") {
                say(output, &format!("E: Unable to locate package {package}\n")).await?;
                return Ok(ExitCode(100));
            }
            say(output, &format!("installed {package}\n")).await?;
        }
        Ok(ExitCode(0))
    }

    fn prepared(&self) -> Option<Duration> {
        let asked = self.spec.preparation.is_some();
        self.machine.prepared.filter(|_| asked)
    }

    async fn keep(&self) -> Kept {
        self.machine.note(Call::Keep);
        if self.machine.keep == Keep::Not {
            return Kept::Not;
        }
        self.end().await;
        if self.machine.keep == Keep::Lost {
            return Kept::Lost;
        }
        match Self::start(self.machine.clone(), &self.spec).await {
            Ok(guest) => Kept::As(Box::new(guest)),
            Err(_) => Kept::Lost,
        }
    }

    async fn fresh_login(&self) -> Result<(), GuestError> {
        self.asked(Call::FreshLogin).await
    }

    async fn dial(&self) -> Result<TcpStream, GuestError> {
        self.alive()?;
        Err(GuestError::Login)
    }

    async fn gone(&self) -> Gone {
        let mut gone = self.gone.clone();
        match gone.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(gone)) => *gone,
            _ => Gone::Crashed,
        }
    }

    fn disk_full(&self) -> bool {
        self.full.exists()
    }

    fn disk_limit_reached(&self) -> bool {
        self.overfull.exists()
    }

    fn login(&self) -> &Login {
        &self.login
    }

    async fn stop(&self) {
        self.machine.note(Call::Stop);
        self.end().await;
    }
}

impl DummyGuest {
    async fn end(&self) {
        // Dropping the sender is what ends the holder's input.
        drop(
            self.stop
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        // The channel closes once the holder has ended.
        let mut gone = self.gone.clone();
        while gone.changed().await.is_ok() {}
    }
}

async fn say(output: &mut dyn Sink, line: &str) -> Result<(), GuestError> {
    output
        .write(line.as_bytes())
        .await
        .map_err(GuestError::Output)
}

/// Keeps the holder's input open until the guest is stopped, dropped or gone by
/// its own word, then waits for the holder, which ends last.
async fn hold(
    mut holder: Child,
    input: ChildStdin,
    mut output: Lines<BufReader<ChildStdout>>,
    stopped: oneshot::Receiver<()>,
    tell: watch::Sender<Option<Gone>>,
) {
    let gone = tokio::select! {
        _ = stopped => Gone::Stopped,
        line = output.next_line() => match line.ok().flatten().as_deref() {
            Some("vanish") => Gone::PoweredOff,
            Some("panic") => Gone::Panicked,
            _ => Gone::Crashed,
        },
    };
    // Told before anything is killed, so that no command seems to have failed.
    tell.send_replace(Some(gone));
    drop(input);
    // Killed by itself: its status says nothing.
    let _ = holder.wait().await;
}

/// Gives a command its standard input; a command need not read it.
async fn feed(input: Option<ChildStdin>, stdin: Stdin<'_>) {
    let Some(mut input) = input else { return };
    let _ = match stdin {
        Stdin::Empty => Ok(()),
        Stdin::Bytes(bytes) => input.write_all(bytes).await,
        Stdin::Reader(reader) => tokio::io::copy(reader, &mut input).await.map(drop),
    };
}

/// Hands output on until the process exits, then what it had written by then.
async fn pump(
    child: &mut Child,
    output: &mut pipe::Receiver,
    sink: &mut dyn Sink,
) -> Result<ExitCode, GuestError> {
    let mut buffer = vec![0; 64 * 1024];
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            read = output.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break child.wait().await,
                Ok(n) => sink.write(&buffer[..n]).await.map_err(GuestError::Output)?,
            },
        }
    };
    // A pipe holds no more than this, and a flooding background never ends.
    for _ in 0..16 {
        // The pipe itself is asked: tokio may not have seen yet that it is ready.
        match rustix::io::read(&*output, &mut buffer[..]) {
            Ok(n) if n > 0 => sink.write(&buffer[..n]).await.map_err(GuestError::Output)?,
            _ => break,
        }
    }
    status.map(exit_code).map_err(|_| GuestError::Host)
}

fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt as _;
    let signal = status.signal().map(|signal| 128 + signal);
    let code = status.code().or(signal).unwrap_or(255);
    ExitCode(u32::try_from(code).unwrap_or(255))
}
