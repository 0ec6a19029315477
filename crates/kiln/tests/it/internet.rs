//! A small internet for tests: network namespaces with a world, a host, its
//! LAN and a metadata service. `internet/internet.py` says what is where.
//!
//! Root makes it of plain namespaces; an ordinary user inside a user namespace.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

use tempfile::TempDir;

use crate::harness::root;

/// The one service of the world that a guest may reach, on all test ports.
pub const WORLD: &str = "93.10.20.30";
/// The host's address on the internet.
pub const HOST: &str = "81.2.3.4";
/// The first of the ports that everybody listens on.
pub const FIRST_PORT: usize = 7000;
/// How many there are.
pub const PORTS: usize = 99;

/// Long for a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A packet that somebody saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who: `world`, `host`, `lan` or `cloud`.
    pub node: String,
    /// The protocol's number, or `frame-` and the Ethernet type.
    pub protocol: String,
    pub source: String,
    pub destination: String,
    pub port: usize,
    /// What its payload says of where it comes from, if anything.
    pub mark: Option<String>,
}

impl Seen {
    fn read(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let ["seen", node, protocol, source, destination, port, mark] = *words.as_slice() else {
            return None;
        };
        Some(Self {
            node: node.to_owned(),
            protocol: protocol.to_owned(),
            source: source.to_owned(),
            destination: destination.to_owned(),
            port: port.parse().ok()?,
            mark: mark.strip_prefix("kiln-escape-").map(str::to_owned),
        })
    }
}

/// The internet, ended when dropped.
pub struct Internet {
    child: Child,
    _stdin: Option<ChildStdin>,
    said: Arc<Mutex<Vec<String>>>,
    _files: TempDir,
    rootless: bool,
}

impl Internet {
    /// Makes it, and waits until every service was reached from the host.
    pub fn new() -> Self {
        let rootless = !rustix::process::geteuid().is_root();
        let files = tempfile::Builder::new().prefix("kiln-it-net-").tempdir();
        let files = files.expect("a directory");
        let user: &[&str] = if rootless {
            &["--user", "--map-root-user"]
        } else {
            &[]
        };
        // It ends with its standard input.
        let mut child = Command::new("unshare")
            .args(user)
            .args(["--net", "--mount", "python3"])
            .arg(root().join("crates/kiln/tests/it/internet/internet.py"))
            .arg(files.path().join("resolv.conf"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (made, ready) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line == "ready" {
                    let _ = made.send(());
                }
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.push(line);
            }
        });
        let internet = Self {
            _stdin: child.stdin.take(),
            child,
            said,
            _files: files,
            rootless,
        };
        let ready = ready.recv_timeout(LIMIT);
        ready.expect("the internet of the tests was not made; its standard error says why");
        internet
    }

    /// What starts a program on the host of this internet, in this directory.
    pub fn on_host(&self, dir: &Path) -> Vec<String> {
        let pid = self.child.id().to_string();
        let mut words = vec!["nsenter", "--target", &pid, "--net", "--mount"];
        if self.rootless {
            words.extend(["--user", "--preserve-credentials"]);
        }
        // Entering a mount namespace leads to its root.
        let dir = dir.display().to_string();
        words.extend([
            "--",
            "sh",
            "-c",
            "cd \"$1\" && shift && exec \"$@\"",
            "sh",
            &dir,
        ]);
        words.into_iter().map(str::to_owned).collect()
    }

    /// The TCP ports that somebody listens on, on this host.
    pub fn open_ports(&self) -> Vec<u16> {
        let mut ports = Vec::new();
        for table in ["tcp", "tcp6"] {
            let path = format!("/proc/{}/net/{table}", self.child.id());
            let text = fs::read_to_string(path).expect("the host's sockets");
            ports.extend(text.lines().skip(1).filter_map(listening_port));
        }
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// All packets of interest that anybody saw so far.
    pub fn seen(&self) -> Vec<Seen> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().filter_map(|line| Seen::read(line)).collect()
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A row of /proc/net/tcp: number, local address, remote address, state.
fn listening_port(row: &str) -> Option<u16> {
    let words: Vec<&str> = row.split_whitespace().collect();
    let (local, state) = (words.get(1)?, words.get(3)?);
    let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    (*state == "0A").then_some(port)
}
