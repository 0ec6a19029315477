//! A private S3 server for tests.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use crate::S3Config;

/// Starts and kills the server, and ends it when its standard input does, which is however
/// the process ends that holds it.
const SHELL: &str = include_str!("s3.sh");

const ACCESS_KEY: &str = "kiln-tests";
const SECRET_KEY: &str = "a-secret-of-the-tests";

/// How long it may take to answer.
const STARTS: Duration = Duration::from_secs(60);

/// An S3 server of this process's own (s3s-fs), on a free port of loopback, with its
/// files in a temporary directory. It checks signatures. It goes when this is dropped, or
/// when the process ends, however it ends.
#[derive(Debug)]
pub struct S3 {
    shell: Child,
    /// Words to the shell, and its answers.
    talk: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    root: PathBuf,
    port: u16,
    buckets: AtomicU32,
}

impl S3 {
    /// Starts one.
    ///
    /// # Errors
    /// When s3s-fs is not installed (`scripts/setup tests` does), or does not start.
    pub fn start() -> io::Result<Self> {
        let port = free_port()?;
        let mut shell = Command::new("sh")
            .args(["-c", SHELL, "s3", &port.to_string(), ACCESS_KEY, SECRET_KEY])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C ends the tests, and by that this.
            .process_group(0)
            .spawn()?;
        let (Some(stdin), Some(stdout)) = (shell.stdin.take(), shell.stdout.take()) else {
            return Err(io::Error::other("the shell has no pipes"));
        };
        let mut answers = BufReader::new(stdout);
        let root = line(&mut answers)?;
        let s3 = Self {
            shell,
            talk: Mutex::new(Some((stdin, answers))),
            root: root.into(),
            port,
            buckets: AtomicU32::new(0),
        };
        s3.restart()?;
        Ok(s3)
    }

    /// Makes an empty bucket, and gives how one connects to it.
    ///
    /// # Errors
    /// When its directory can't be made.
    pub fn bucket(&self) -> io::Result<S3Config> {
        let number = self.buckets.fetch_add(1, Ordering::Relaxed);
        let bucket = format!("bucket{number}");
        std::fs::create_dir(self.root.join(&bucket))?;
        Ok(S3Config {
            endpoint: Some(format!("http://{}", self.address())),
            region: "us-east-1".to_owned(),
            bucket,
            prefix: "farm".to_owned(),
            virtual_host: false,
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            ca: None,
            insecure: false,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Where its buckets are directories.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What it says of itself.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.root.with_extension("log")
    }

    /// Where a bucket's objects are files, below the prefix.
    #[must_use]
    pub fn directory(&self, config: &S3Config) -> PathBuf {
        self.root.join(&config.bucket).join(&config.prefix)
    }

    /// Ends it, as a kill does.
    ///
    /// # Errors
    /// When its shell is gone.
    pub fn kill(&self) -> io::Result<()> {
        self.tell("kill")
    }

    /// Starts it again, where it was.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn restart(&self) -> io::Result<()> {
        self.tell("start")?;
        let began = Instant::now();
        while TcpStream::connect(self.address()).is_err() {
            if began.elapsed() > STARTS {
                return Err(io::Error::other(
                    "s3s-fs did not start; `scripts/setup tests` installs it",
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn tell(&self, word: &str) -> io::Result<()> {
        let mut talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((stdin, answers)) = &mut *talk else {
            return Ok(());
        };
        writeln!(stdin, "{word}")?;
        line(answers).map(drop)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // The shell ends what it started when nobody talks to it any more.
        drop(
            self.talk
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        drop(self.shell.wait());
    }
}

fn line(answers: &mut BufReader<ChildStdout>) -> io::Result<String> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    match line.trim_end() {
        "" => Err(io::Error::other("the shell of s3s-fs has ended; see above")),
        line => Ok(line.to_owned()),
    }
}

/// One that nobody had a moment ago.
fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
