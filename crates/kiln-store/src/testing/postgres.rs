//! A private PostgreSQL for tests.

use std::{
    io::{self, BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
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
    programs: PathBuf,
    socket: PathBuf,
    databases: AtomicU32,
}

impl Postgres {
    /// Starts one, as `nobody` where this process is root: PostgreSQL refuses to be.
    ///
    /// # Errors
    /// When it is not installed (`scripts/setup tests` does), or does not start. What
    /// it said is on standard error.
    pub fn start() -> io::Result<Self> {
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
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C ends the tests, and by that this.
            .process_group(0)
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = shell.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line.is_empty() {
            shell.wait()?;
            return Err(io::Error::other("PostgreSQL did not start; see above"));
        }
        Ok(Self {
            shell,
            programs,
            socket: PathBuf::from(line.trim_end()),
            databases: AtomicU32::new(0),
        })
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
            .status()?;
        if !made.success() {
            return Err(io::Error::other("createdb failed; see above"));
        }
        Ok(format!(
            "postgres:///{name}?user=kiln&host={}",
            self.socket.display()
        ))
    }

    /// Cuts all connections to all databases, as a restart of the server would.
    ///
    /// # Errors
    /// When PostgreSQL refuses.
    pub fn cut_connections(&self, url: &str) -> io::Result<()> {
        let name = url
            .trim_start_matches("postgres:///")
            .split('?')
            .next()
            .unwrap_or_default();
        let done = Command::new(self.programs.join("psql"))
            .args([
                "-q",
                "-U",
                "kiln",
                "-d",
                "postgres",
                "-o",
                "/dev/null",
                "-c",
            ])
            .arg(format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            ))
            .arg("-h")
            .arg(&self.socket)
            .status()?;
        if !done.success() {
            return Err(io::Error::other("psql failed; see above"));
        }
        Ok(())
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
