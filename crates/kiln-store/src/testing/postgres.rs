//! A private PostgreSQL for tests.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

/// Where Debian has the server's programs, one directory for each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// Runs the server and ends it when its standard input does, which is however the
/// process ends that holds it.
const SHELL: &str = include_str!("postgres.sh");

/// A PostgreSQL of this process's own, in a temporary directory, on a socket there. It
/// stops and its directory goes when this is dropped, or when the process ends, however
/// it ends.
#[derive(Debug)]
pub struct Postgres {
    shell: Child,
    answers: Mutex<BufReader<ChildStdout>>,
    programs: PathBuf,
    socket: PathBuf,
    /// Where it listens besides, with TLS.
    port: Option<u16>,
    databases: AtomicU32,
}

impl Postgres {
    /// Starts one, as `nobody` where this process is root: PostgreSQL refuses to be.
    ///
    /// # Errors
    /// When it is not installed (`scripts/setup tests` does), or does not start. What
    /// it said is on standard error.
    pub fn start() -> io::Result<Self> {
        Self::listening(None, false)
    }

    /// The same, and it listens on loopback too, for passwords and TLS only.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with_tls() -> io::Result<Self> {
        // Free a moment ago, which mostly is free now.
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        Self::listening(Some(port), false)
    }

    /// One whose commits are on the disk, as in life: for benchmarks.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_durable() -> io::Result<Self> {
        Self::listening(None, true)
    }

    fn listening(port: Option<u16>, durable: bool) -> io::Result<Self> {
        let programs = programs()?;
        let root = std::fs::metadata("/proc/self").is_ok_and(|own| {
            use std::os::unix::fs::MetadataExt as _;
            own.uid() == 0
        });
        let mut command = if root {
            let mut command = Command::new("runuser");
            command.args(["-u", "nobody", "--", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        let mut shell = command
            .args(["-c", SHELL, "postgres"])
            .arg(&programs)
            .arg(port.map_or_else(String::new, |port| port.to_string()))
            .args(durable.then_some("durable"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C ends the tests, and by that this.
            .process_group(0)
            .spawn()?;
        let mut line = String::new();
        let said = shell.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut answers = BufReader::new(said);
        answers.read_line(&mut line)?;
        if line.is_empty() {
            shell.wait()?;
            return Err(io::Error::other("PostgreSQL did not start; see above"));
        }
        Ok(Self {
            shell,
            answers: Mutex::new(answers),
            programs,
            socket: PathBuf::from(line.trim_end()),
            port,
            databases: AtomicU32::new(0),
        })
    }

    /// Where one of PostgreSQL's programs is, of the version that is started.
    ///
    /// # Errors
    /// When PostgreSQL is not installed (`scripts/setup tests` does).
    pub fn program(name: &str) -> io::Result<PathBuf> {
        Ok(programs()?.join(name))
    }

    /// Tells the shell something and waits until it is done.
    fn tell(&self, word: &str) -> io::Result<()> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut input = self.shell.stdin.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        input.write_all(format!("{word}\n").as_bytes())?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        match line.as_str() {
            "done\n" => Ok(()),
            _ => Err(io::Error::other(format!("PostgreSQL did not {word}"))),
        }
    }

    /// Stops it: all connections are told so and cut.
    ///
    /// # Errors
    /// When its shell is gone.
    pub fn stop(&self) -> io::Result<()> {
        self.tell("stop")
    }

    /// Ends it as a crash of its host would.
    ///
    /// # Errors
    /// When its shell is gone.
    pub fn kill(&self) -> io::Result<()> {
        self.tell("kill")
    }

    /// Starts it again on what is there, and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_again(&self) -> io::Result<()> {
        self.tell("start")
    }

    /// Freezes all of it: it takes what is sent and answers nothing.
    ///
    /// # Errors
    /// When its shell is gone.
    pub fn freeze(&self) -> io::Result<()> {
        self.tell("freeze")
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When its shell is gone.
    pub fn go_on(&self) -> io::Result<()> {
        self.tell("go-on")
    }

    /// Does this as the superuser in a database, whose URL that is: what `psql` reads.
    /// Gives what it said.
    ///
    /// # Errors
    /// When PostgreSQL refuses.
    pub fn sql(&self, url: &str, text: &str) -> io::Result<String> {
        let mut psql = Command::new(self.programs.join("psql"))
            .args(["-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-U", "kiln"])
            .args(["-d", name(url), "-f", "-", "-h"])
            .arg(&self.socket)
            .args(self.port())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = psql.stdin.take() {
            input.write_all(text.as_bytes())?;
        }
        let done = psql.wait_with_output()?;
        if !done.status.success() {
            return Err(io::Error::other("psql failed; see above"));
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// The URL of a database for another role, by TCP and TLS.
    #[must_use]
    pub fn with_tls(&self, url: &str, role: &str) -> String {
        let port = self.port.unwrap_or_default();
        let ca = self.socket.join("ca.pem");
        let (name, ca) = (name(url), ca.display());
        format!("postgres://{role}@127.0.0.1:{port}/{name}?sslmode=verify-full&sslrootcert={ca}")
    }

    /// Its words for PostgreSQL's programs.
    fn port(&self) -> Vec<String> {
        let port = self
            .port
            .map(|port| vec!["-p".to_owned(), port.to_string()]);
        port.unwrap_or_default()
    }

    /// Makes an empty database and gives its URL.
    ///
    /// # Errors
    /// When PostgreSQL refuses.
    pub fn database(&self) -> io::Result<String> {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test{number}");
        let made = Command::new(self.programs.join("createdb"))
            .args(["-U", "kiln", "-T", "template0", &name, "-h"])
            .arg(&self.socket)
            .args(self.port())
            .status()?;
        if !made.success() {
            return Err(io::Error::other("createdb failed; see above"));
        }
        let port = self.port.map(|port| format!("&port={port}"));
        Ok(format!(
            "postgres:///{name}?user=kiln&host={}{}",
            self.socket.display(),
            port.unwrap_or_default()
        ))
    }

    /// Cuts all connections to all databases, as a restart of the server would.
    ///
    /// # Errors
    /// When PostgreSQL refuses.
    pub fn cut_connections(&self, url: &str) -> io::Result<()> {
        let name = name(url);
        self.sql(
            "postgres:///postgres",
            &format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            ),
        )
        .map(drop)
    }

    /// Where its socket is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        drop(self.shell.wait());
    }
}

/// The name in a database's URL.
fn name(url: &str) -> &str {
    let path = url.split('?').next().unwrap_or(url);
    path.rsplit('/').next().unwrap_or(path)
}

/// The newest version's programs.
fn programs() -> io::Result<PathBuf> {
    let missing = || {
        io::Error::other(format!(
            "there is no PostgreSQL in {VERSIONS}; `scripts/setup tests` installs it"
        ))
    };
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(VERSIONS)
        .map_err(|_| missing())?
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let programs = entry.path().join("bin");
            programs
                .join("initdb")
                .exists()
                .then_some((version, programs))
        })
        .collect();
    found.sort();
    found
        .pop()
        .map(|(_, programs)| programs)
        .ok_or_else(missing)
}
