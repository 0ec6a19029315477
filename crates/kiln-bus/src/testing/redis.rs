//! A private Redis for tests.

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use crate::Config;

/// Runs the server and ends it when its standard input does, which is however the
/// process ends that holds it.
const SHELL: &str = include_str!("redis.sh");
/// How long it may take to start.
const START: Duration = Duration::from_secs(30);

/// How a Redis is to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup<'a> {
    /// The password that it wants of the user `kiln`, who may do what a bus does and no more;
    /// without one everybody may do everything.
    pub password: Option<&'a str>,
    /// Whether it speaks TLS.
    pub tls: bool,
}

/// A Redis of this process's own, on a port of the loopback device. It stops and its directory
/// goes when this is dropped, or when the process ends, however it ends. It keeps nothing.
#[derive(Debug)]
pub struct Redis {
    shell: Child,
    words: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    dir: PathBuf,
    port: u16,
    tls: bool,
    password: Option<String>,
}

impl Redis {
    /// Starts one.
    ///
    /// # Errors
    /// When it is not installed (`scripts/setup tests` does), or does not start.
    pub fn start(setup: Setup<'_>) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("kiln-redis.").tempdir()?;
        if setup.tls {
            certificates(dir.path())?;
        }
        // From here on the shell removes it.
        let dir = dir.keep();
        let mut shell = Command::new("sh")
            .args(["-c", SHELL, "redis"])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C ends the tests, and by that this.
            .process_group(0)
            .spawn()?;
        let words = shell.stdin.take();
        let answers = shell.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut redis = Self {
            shell,
            words,
            answers: BufReader::new(answers),
            dir,
            port: 0,
            tls: setup.tls,
            password: setup.password.map(str::to_owned),
        };
        // A port that was free a moment ago is mostly free still.
        let mut tried = Err(io::Error::other("no port was tried"));
        for _ in 0..5 {
            redis.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
                .local_addr()?
                .port();
            std::fs::write(redis.dir.join("redis.conf"), redis.file())?;
            tried = redis.up();
            if tried.is_ok() {
                break;
            }
        }
        tried.map(|()| redis)
    }

    fn file(&self) -> String {
        let dir = self.dir.display();
        let mut file =
            format!("bind 127.0.0.1\ndir {dir}\nsave \"\"\nappendonly no\ndatabases 16\n");
        let port = self.port;
        // It can't fail: it is a text.
        let _ = if self.tls {
            write!(
                file,
                "port 0\ntls-port {port}\ntls-auth-clients no\ntls-cert-file {dir}/server.crt\n\
                 tls-key-file {dir}/server.key\ntls-ca-cert-file {dir}/ca.crt\n"
            )
        } else {
            writeln!(file, "port {port}")
        };
        if let Some(password) = &self.password {
            let _ = write!(
                file,
                "user default off\nuser kiln on >{password} -@all +publish +subscribe +ping +hello +auth resetchannels &kiln.*\n"
            );
        }
        file
    }

    /// Where it is, without the password.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let user = if self.password.is_some() { "kiln@" } else { "" };
        format!("{scheme}://{user}localhost:{}", self.port)
    }

    /// All that a bus is told to come here.
    #[must_use]
    pub fn config(&self) -> Config {
        Config {
            url: self.url(),
            password: self.password.clone(),
            ca: std::fs::read(self.ca()).ok(),
        }
    }

    /// The certificate (PEM) by which its own is known, with TLS.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// What it says of itself.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it.
    ///
    /// # Errors
    /// When the shell around it is gone.
    pub fn kill(&mut self) -> io::Result<()> {
        self.say("kill")
    }

    /// Starts it, on the same port; kills it first, if it is there.
    ///
    /// # Errors
    /// When it does not start.
    pub fn up(&mut self) -> io::Result<()> {
        self.say("start")?;
        let late = Instant::now() + START;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            if Instant::now() > late
                || log.contains("Failed listening")
                || log.contains("not found")
            {
                let text =
                    format!("Redis does not start (`scripts/setup tests` installs it): {log}");
                std::fs::write(self.dir.join("log"), "")?;
                return Err(io::Error::other(text));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn say(&mut self, word: &str) -> io::Result<()> {
        let words = self.words.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(words, "{word}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        if answer.trim_end() == word {
            Ok(())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.words.take());
        drop(self.shell.wait());
    }
}

/// An issuer, and a certificate for `localhost`.
fn certificates(dir: &Path) -> io::Result<()> {
    let new = |name: &str, more: &[&str]| {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-subj", &format!("/CN=kiln test {name}")])
            .args([
                "-keyout",
                &format!("{name}.key"),
                "-out",
                &format!("{name}.crt"),
            ])
            .args(more)
            .current_dir(dir)
            .output()?;
        if made.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&made.stderr).into_owned();
        Err(io::Error::other(text))
    };
    new("ca", &[])?;
    new(
        "server",
        &[
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ],
    )
}
