//! From inside the jail, but outside the guest: as if QEMU had been taken over.
//!
//! A program of ours, `jail/taken_over.py`, is in QEMU's place. kiln takes it for
//! QEMU: it makes the very jail for it, and gives it all that QEMU is given
//! when it starts from a template. The program tries what it can think of;
//! each attempt has a name and a result. Once as root, once as an ordinary user.
//!
//! What QEMU's own filter (`-sandbox`) stops is not looked at: the program has
//! none. The jail has to hold without it.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::PermissionsExt as _,
            net::{SocketAddr as UnixAddress, UnixListener},
        },
    },
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    harness::{self, IMAGE, Kiln, Running},
    network::own_address,
};

const TAKEN_OVER: &str = include_str!("jail/taken_over.py");
/// Nobody's number.
const ORDINARY: &str = "43211";
/// In kiln's environment.
const IN_ENVIRONMENT: &str = "kiln-jail-secret-of-the-environment";
/// In another job's log.
const NEIGHBOURS: &str = "kiln-jail-secret-of-a-neighbour";
/// Gives what follows a session keyring with a key in it, as a login does.
const WITH_KEYRING: &str = "import ctypes, os, sys\n\
    libc = ctypes.CDLL(None, use_errno=True)\n\
    assert libc.syscall(250, 1, None) > 0\n\
    assert libc.syscall(248, b'user', b'kiln-test', b'secret', ctypes.c_size_t(6), -3) > 0\n\
    os.execvp(sys.argv[1], sys.argv[1:])";
/// Nothing of these is to be seen.
const HIDDEN: &[&str] = &[
    "/boot",
    "/dev/mem",
    "/dev/net/tun",
    "/dev/shm",
    "/dev/tty",
    "/etc/hostname",
    "/etc/machine-id",
    "/etc/shadow",
    "/etc/ssh",
    "/home",
    "/mnt",
    "/opt",
    "/proc/cmdline",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/root",
    "/run",
    "/srv",
    "/sys",
    "/var",
];
/// What the jail's root may have.
const TOP: &[&str] = &[
    "bin", "dev", "etc", "gnu", "lib", "lib32", "lib64", "nix", "proc", "sbin", "tmp", "usr",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum User {
    /// Root, where the tests are root's; else whoever runs them.
    Own,
    /// An ordinary user, where the tests are root's.
    Ordinary,
}

/// One attempt.
#[derive(Debug, Clone)]
struct Attempt {
    name: String,
    result: String,
    why: String,
}

/// What came of all attempts of one user, by their groups.
struct Report {
    user: &'static str,
    groups: BTreeMap<String, Vec<Attempt>>,
    /// Files that were shared, before and after.
    before: String,
    after: String,
}

static REPORTS: LazyLock<Vec<Report>> = LazyLock::new(|| {
    let mut reports = vec![report(User::Own)];
    if rustix::process::geteuid().is_root() {
        reports.push(report(User::Ordinary));
    }
    reports
});

/// Prints a group's table; fails unless each attempt of it was stopped.
#[track_caller]
#[expect(clippy::print_stdout, reason = "the table is the result")]
fn all_stopped(group: &str, at_least: usize) {
    let mut open = Vec::new();
    for report in REPORTS.iter() {
        let attempts = report.groups.get(group);
        let attempts = attempts.unwrap_or_else(|| panic!("{}: nothing of {group}", report.user));
        assert!(
            attempts.len() >= at_least,
            "{}: only {attempts:?}",
            report.user
        );
        for Attempt { name, result, why } in attempts {
            println!("{:<14} {result:<8} {name} ({why})", report.user);
            if result == "OPEN" {
                open.push(format!("{}: {name}: {why}", report.user));
            }
        }
    }
    assert!(open.is_empty(), "not stopped:\n{}", open.join("\n"));
}

#[test]
fn no_descriptor_that_qemu_holds_changes_what_others_start_from() {
    all_stopped("descriptors", 20);
}

#[test]
fn an_image_and_a_template_can_only_be_read() {
    all_stopped("shared_files", 45);
    for report in REPORTS.iter() {
        assert_eq!(report.before, report.after, "{}", report.user);
    }
}

#[test]
fn files_of_the_host_and_of_other_jobs_are_not_there() {
    all_stopped("host_files", 30);
}

#[test]
fn processes_keys_and_memory_of_the_host_are_out_of_reach() {
    all_stopped("processes", 30);
}

#[test]
fn there_are_no_rights_to_use_and_none_to_get() {
    all_stopped("rights", 40);
}

#[test]
fn there_is_no_terminal_to_type_into() {
    all_stopped("terminal", 5);
}

#[test]
fn the_network_leads_outside_and_nowhere_else() {
    all_stopped("network", 14);
}

/// What lies outside, for as long as this lives.
struct Outside {
    addresses: Vec<Ipv4Addr>,
    port: u16,
    abstract_name: String,
    socket: PathBuf,
    shared_memory: String,
}

impl Outside {
    fn open(dir: &Path) -> Self {
        let listener = TcpListener::bind(("0.0.0.0", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.and_then(|mut stream| stream.write_all(b"the host's secret"));
            }
        });
        let abstract_name = format!("kiln-it-{}-{port}", std::process::id());
        let address = UnixAddress::from_abstract_name(&abstract_name).expect("a name");
        tell_secrets(UnixListener::bind_addr(&address).expect("an abstract socket"));
        let socket = dir.join("socket");
        tell_secrets(UnixListener::bind(&socket).expect("a socket"));
        let anybody = fs::Permissions::from_mode(0o777);
        fs::set_permissions(&socket, anybody).expect("a mode");
        let made = Command::new("ipcmk")
            .args(["--shmem", "4096", "--mode", "0666"])
            .output();
        let said = String::from_utf8_lossy(&made.expect("ipcmk").stdout).into_owned();
        let id = said
            .rsplit(' ')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned();
        Self {
            addresses: own_address().into_iter().collect(),
            port,
            abstract_name,
            socket,
            shared_memory: id,
        }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = Command::new("ipcrm")
            .args(["--shmem-id", &self.shared_memory])
            .status();
    }
}

fn tell_secrets(listener: UnixListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(b"the host's secret"));
        }
    });
}

/// A user's own kiln, images and templates.
struct Place {
    user: User,
    kiln: Kiln,
    images: tempfile::TempDir,
}

impl Place {
    fn make(user: User) -> Self {
        let images = tempfile::Builder::new().prefix("kiln-it-images-").tempdir();
        let images = images.expect("a directory");
        done(
            Command::new("cp")
                .args(["-rL", "--reflink=auto"])
                .arg(harness::images().join("debian"))
                .arg(images.path()),
        );
        done(
            Command::new("chmod")
                .args(["-R", "a+rX"])
                .arg(images.path()),
        );
        let kiln = Kiln::with_images(images.path());
        fs::copy(env!("CARGO_BIN_EXE_kiln"), kiln.home().join("kiln")).expect("the binary");
        let place = Self { user, kiln, images };
        place.give();
        place
    }

    /// An ordinary user's are the images too: nothing but the jail protects them.
    fn give(&self) {
        if self.user == User::Ordinary {
            done(
                Command::new("chown")
                    .args(["-R", ORDINARY])
                    .arg(self.kiln.home())
                    .arg(self.images.path()),
            );
        }
    }

    /// Starts `kiln run`, its user's, perhaps with another QEMU.
    fn start(&self, words: &[&str], qemu: Option<&Path>, turn: bool) -> Running {
        let mut shell = "shift; ".to_owned();
        let mut through: Vec<&str> = Vec::new();
        if let Some(fake) = qemu {
            through = match rustix::process::geteuid().is_root() {
                true => vec!["unshare", "--mount"],
                false => vec!["unshare", "--mount", "--map-root-user"],
            };
            let (fake, real) = (fake.display(), qemu_system().display().to_string());
            shell += &format!("mount --bind {fake} {real} && ");
        }
        shell += "exec /usr/bin/python3 -c \"$KEYRING\" ";
        if self.user == User::Ordinary {
            shell += &format!("setpriv --reuid {ORDINARY} --regid {ORDINARY} --clear-groups -- ");
        }
        shell += &format!("{} \"$@\"", self.kiln.home().join("kiln").display());
        through.extend(["sh", "-c", &shell, "sh"]);
        let run = self.kiln.kiln(["run"]).args(words);
        run.through(through)
            .env("KEYRING", WITH_KEYRING)
            .env("KILN_SECRET", IN_ENVIRONMENT)
            .env("XDG_CACHE_HOME", self.kiln.home().join("cache"))
            .takes_turns(turn)
            .start()
    }

    fn template(&self) -> PathBuf {
        let templates = self.kiln.home().join("cache/kiln/templates");
        let entries = fs::read_dir(&templates).expect("templates").flatten();
        let mut dirs = entries
            .map(|entry| entry.path())
            .filter(|path| path.is_dir());
        dirs.next().expect("a template")
    }

    /// Names, modes and contents of what all guests start from.
    fn shared(&self) -> String {
        let dirs = [self.images.path(), &self.template()];
        let mut find = Command::new("find");
        find.args(dirs).args([
            "-printf",
            "%p %y %m %U %s %l\\n",
            "-type",
            "f",
            "-exec",
            "sha256sum",
            "{}",
            ";",
        ]);
        String::from_utf8_lossy(&find.output().expect("find").stdout).into_owned()
    }
}

#[track_caller]
fn done(command: &mut Command) {
    assert!(
        command.status().is_ok_and(|status| status.success()),
        "{command:?}"
    );
}

/// Where kiln finds QEMU.
fn qemu_system() -> PathBuf {
    let dirs = kiln_vm::namespace::SYSTEM_PATH.split(':').map(Path::new);
    let mut found = dirs.map(|dir| dir.join("qemu-system-x86_64"));
    let found = found.find(|path| path.is_file()).expect("QEMU");
    found.canonicalize().expect("QEMU")
}

/// Boots a real guest for its template, lets the attempts run, and starts a
/// real guest from the same template.
fn report(user: User) -> Report {
    let place = Place::make(user);
    let hello = place.kiln.file(
        "hello.yml",
        format!("image: {IMAGE}\ntasks:\n- hello: echo hi\n"),
    );
    let hello = hello.display().to_string();
    let wait = format!("image: {IMAGE}\ntasks:\n- wait: \"echo {NEIGHBOURS}; sleep 600\"\n");
    let wait = place.kiln.file("wait.yml", wait).display().to_string();
    let outside = Outside::open(&place.kiln.dir());
    let secret = place.kiln.file("secret", "the host's secret");
    place.give();
    place.start(&[&hello], None, true).expect_status(0);
    let neighbour = place.start(&["--dummy", &wait], None, false);
    neighbour.wait_for_stdout(NEIGHBOURS);
    let secrets = json!({
        "a file of kiln's user": secret,
        "another job's log": neighbour.folder().join("wait/log"),
        "another job's folder": neighbour.folder().join("log"),
        "the template's memory": place.template().join("memory"),
        "the template's state": place.template().join("state"),
        "the binary": place.kiln.home().join("kiln"),
    });
    let before = place.shared();
    let fake = place.kiln.file("qemu", "");
    let facts = facts(&place, &outside, &neighbour, &secrets);
    fs::write(&fake, TAKEN_OVER.replace("@FACTS@", &facts)).expect("a program");
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).expect("a mode");
    let text = attempts(place.start(&["-v", &hello], Some(&fake), false));
    let after = place.shared();
    let again = place.start(&["-v", &hello], None, true).expect_status(0);
    again.expect_stderr("template: identity");
    assert!(
        !again.stderr().contains("has no template here yet"),
        "the template was made anew: {again}"
    );
    let user = match (user, rustix::process::geteuid().is_root()) {
        (User::Own, true) => "root",
        _ => "ordinary user",
    };
    Report {
        user,
        groups: groups(&text),
        before,
        after,
    }
}

fn facts(
    place: &Place,
    outside: &Outside,
    neighbour: &Running,
    secrets: &serde_json::Value,
) -> String {
    let version = Command::new(qemu_system())
        .arg("--version")
        .output()
        .expect("QEMU");
    let version = String::from_utf8_lossy(&version.stdout)
        .lines()
        .next()
        .expect("a version")
        .to_owned();
    let image = place.images.path().join(IMAGE);
    let template = place.template();
    // A directory of the test's may lie below one of these.
    let ours = [image.as_path(), place.kiln.home()];
    let hidden: Vec<&&str> = HIDDEN
        .iter()
        .filter(|path| !ours.iter().any(|dir| dir.starts_with(path)))
        .collect();
    let top = ours.iter().filter_map(|dir| dir.iter().nth(1)?.to_str());
    let top: Vec<&str> = TOP.iter().copied().chain(top).collect();
    json!({
        "version": version,
        "shared": {
            "the image's disk": image.join("amd64/root.img.qcow2"),
            "the image's kernel": image.join("amd64/vmlinuz"),
            "the image's functions": image.join("functions"),
            "the template's disk": template.join("machine/disk.qcow2"),
        },
        "programs": ["/usr/bin/true", qemu_system()],
        "directories": { "/": "/", "/usr": "/usr", "/dev": "/dev", "/etc": "/etc", "the image": image, "the template": template.join("machine") },
        "hidden": hidden,
        "secrets": secrets,
        "top": top,
        "processes": { "the test": std::process::id(), "another job's kiln": neighbour.pid() },
        "environment": IN_ENVIRONMENT,
        "port": outside.port,
        "addresses": outside.addresses,
        "abstract": outside.abstract_name,
        "socket": outside.socket,
        "shm": outside.shared_memory.parse::<i64>().expect("the number of shared memory"),
    })
    .to_string()
}

/// Waits for the last of them, and ends the run.
fn attempts(running: Running) -> String {
    let since = Instant::now();
    let found = loop {
        let runs = running.try_folder();
        let text =
            runs.and_then(|folder| fs::read_to_string(folder.join(".guest/machine/report")).ok());
        if let Some(text) = text.filter(|text| text.ends_with("end\n")) {
            break text;
        }
        if since.elapsed() > Duration::from_secs(120) {
            running.signal(rustix::process::Signal::INT);
            panic!("no report: {}", running.end());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    running.signal(rustix::process::Signal::INT);
    running.expect_status(130);
    found
}

fn groups(text: &str) -> BTreeMap<String, Vec<Attempt>> {
    let mut groups: BTreeMap<String, Vec<Attempt>> = BTreeMap::new();
    let mut group = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# ") {
            group = name.to_owned();
        } else if let [name, result, why] = line.split('\t').collect::<Vec<_>>()[..] {
            let attempt = Attempt {
                name: name.to_owned(),
                result: result.to_owned(),
                why: why.to_owned(),
            };
            groups.entry(group.clone()).or_default().push(attempt);
        }
    }
    groups
}
