//! Images that somebody made badly, and looking for what a run leaves.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::harness::{self, Ended, IMAGE};

/// What a kernel needs to start a shell as its init in two seconds.
const TINY: &str = "console=ttyS0 quiet panic=-1 net.ifnames=0 cryptomgr.notests mitigations=off \
                    random.trust_cpu=on rdinit=/bin/sh -- -c";
/// Brings the network of a tiny guest up.
pub const NETWORK: &str = "/bin/busybox mkdir /proc; /bin/busybox mount -t devtmpfs dev /dev; \
                           while read -r m; do /bin/busybox insmod $m; done </order; \
                           /bin/busybox ip addr add 10.0.2.15/24 dev eth0; \
                           /bin/busybox ip link set eth0 up;";
/// Never ends.
pub const FOR_EVER: &str = "while :; do /bin/busybox sleep 1; done";

/// A directory of images, made of the real one's kernel.
pub struct Images(TempDir);

impl Images {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("kiln-it-images-").tempdir();
        Self(dir.expect("a directory"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The directory of an image `test/NAME`.
    pub fn dir(&self, name: &str) -> PathBuf {
        self.path().join("test").join(name)
    }

    /// An image with this `functions`, a kernel, and a small empty disk.
    pub fn with_functions(&self, name: &str, functions: &str) -> &Self {
        let arch = self.dir(name).join("amd64");
        fs::create_dir_all(&arch).expect("a directory");
        let real = harness::images().join(IMAGE).join("amd64");
        for file in ["vmlinuz", "initrd.img"] {
            // Not a link: kiln wants an image's kernel inside the image.
            fs::copy(real.join(file), arch.join(file)).expect("a file of the real image");
        }
        fs::write(self.dir(name).join("functions"), functions).expect("functions");
        qemu_img(&["create", "-q", "-f", "qcow2"], &self.disk(name), &["64M"]);
        self
    }

    /// An image that boots with these further words for QEMU.
    pub fn with_words(&self, name: &str, words: &str) -> &Self {
        self.with_functions(name, &boot(words))
    }

    /// An image whose guest is a shell with this script as its init.
    pub fn with_init(&self, name: &str, script: &str) -> &Self {
        self.with_words(name, &format!("-append '{TINY} \"{script}\"'"))
    }

    /// An image with these bytes as its disk.
    pub fn with_disk(&self, name: &str, bytes: &[u8]) -> &Self {
        self.with_words(name, "");
        fs::write(self.disk(name), bytes).expect("a disk");
        self
    }

    /// An image whose disk `qemu-img create` makes with these arguments.
    pub fn with_made_disk(&self, name: &str, options: &[&str], size: &[&str]) -> &Self {
        self.with_words(name, "");
        qemu_img(
            &[&["create", "-q", "-f", "qcow2"], options].concat(),
            &self.disk(name),
            size,
        );
        self
    }

    pub fn disk(&self, name: &str) -> PathBuf {
        self.dir(name).join("amd64/root.img.qcow2")
    }
}

fn boot(words: &str) -> String {
    format!(
        "default_arch=amd64\nMEMORY=256\nboot() {{\n_boot $(cpu_opts x86_64) -kernel \
         \"$wd/$arch/vmlinuz\" -initrd \"$wd/$arch/initrd.img\" {words}\n}}\n"
    )
}

fn qemu_img(before: &[&str], disk: &Path, after: &[&str]) {
    let status = Command::new("qemu-img")
        .args(before)
        .arg(disk)
        .args(after)
        .status();
    assert!(
        status.expect("qemu-img").success(),
        "qemu-img {before:?} {after:?}"
    );
}

/// A manifest for an image of [`Images`].
pub fn manifest(image: &str) -> String {
    format!("image: test/{image}\ntasks:\n- hello: echo hi\n")
}

/// Waits until this holds.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A process of this host: its number may be another's later, its start not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub command: String,
    started: String,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may have blanks and brackets in it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        if fields.first() == Some(&"Z") {
            return None;
        }
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(Self {
            pid,
            command: String::from_utf8_lossy(&command).replace('\0', " "),
            started: (*fields.get(19)?).to_owned(),
        })
    }

    pub fn lives(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.started == self.started)
    }
}

/// All processes below this one.
pub fn family(pid: u32) -> Vec<Process> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let mut found = Vec::new();
    for task in tasks.into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
        {
            found.extend(Process::read(child));
            found.extend(family(child));
        }
    }
    found
}

/// The process below this one whose command has this word.
#[track_caller]
pub fn member(pid: u32, word: &str) -> Process {
    let what = format!("a process `{word}`");
    eventually(&what, Duration::from_secs(30), || {
        family(pid)
            .into_iter()
            .find(|process| process.command.contains(word))
    })
}

/// All of this host whose command has this word.
pub fn processes(word: &str) -> Vec<Process> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::read)
        .filter(|process| process.command.contains(word))
        .collect()
}

/// Fails unless all of them end within two seconds.
#[track_caller]
pub fn all_gone(processes: &[Process]) {
    assert!(!processes.is_empty(), "there was nothing to begin with");
    let since = Instant::now();
    while processes.iter().any(Process::lives) {
        let left: Vec<&Process> = processes.iter().filter(|process| process.lives()).collect();
        assert!(
            since.elapsed() < Duration::from_secs(2),
            "left behind: {left:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Fails when a log tells its owner of the host: its paths or its QEMU.
#[track_caller]
pub fn tells_nothing_of_the_host(ended: &Ended, images: &Path) {
    let mut logs = vec![ended.log()];
    for entry in fs::read_dir(ended.folder()).into_iter().flatten().flatten() {
        logs.extend(fs::read_to_string(entry.path().join("log")));
    }
    let folder = ended.folder().display().to_string();
    let images = images.display().to_string();
    for log in logs {
        for secret in [&*folder, &*images, "qemu", "QEMU", "slirp", "functions"] {
            assert!(!log.contains(secret), "`{secret}` is in the log:\n{log}");
        }
    }
}

/// Fails unless a run's folder has lost what only its guest needed.
#[track_caller]
pub fn scratch_is_gone(folder: &Path) {
    assert!(
        !folder.join(".guest").exists(),
        "{} has a .guest",
        folder.display()
    );
}

/// Runs what follows where this program is in QEMU's place, for nobody else. The
/// real one is there too, in the place of [`REAL_QEMU`].
pub fn with_qemu(program: &Path) -> Vec<String> {
    let mut words = own_mounts();
    let mount = format!(
        "mount --bind /usr/bin/qemu-system-x86_64 {REAL_QEMU} && mount --bind {} /usr/bin/qemu-system-x86_64 && exec \"$@\"",
        program.display()
    );
    words.extend(["sh".into(), "-c".into(), mount, "sh".into()]);
    words
}

/// Comes with the one that guests run in, and is used by none.
pub const REAL_QEMU: &str = "/usr/bin/qemu-system-i386";

/// Runs what follows where it may mount what only it sees.
pub fn own_mounts() -> Vec<String> {
    let words: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["unshare", "--mount"],
        false => &["unshare", "--mount", "--map-root-user"],
    };
    words.iter().map(|&word| word.to_owned()).collect()
}
