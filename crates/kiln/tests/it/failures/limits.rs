//! More than was granted: disk, memory, processes. As root and as an ordinary
//! user, with cgroups and without.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::support::{
    FOR_EVER, Images, all_gone, eventually, family, manifest, member, scratch_is_gone,
    tells_nothing_of_the_host,
};
use crate::{
    harness::{self, Invocation, Kiln, Running},
    servers::{Server, sh},
};

/// An ordinary user of no name. The files of who runs the tests are out of its
/// reach: it finds kiln and the images below /mnt.
const ORDINARY: &str = r#"
    mount -t tmpfs -o mode=755 none /mnt
    mkdir /mnt/images
    : >/mnt/kiln
    mount --bind "$1" /mnt/kiln
    mount --bind "$KILN_IMAGES" /mnt/images
    shift
    chown -R 20318:20318 "$HOME"
    exec setpriv --reuid 20318 --regid 20318 --clear-groups \
        env KILN_IMAGES=/mnt/images XDG_CACHE_HOME="$HOME/cache" /mnt/kiln "$@"
"#;

/// As root and as an ordinary user; as who runs the tests where that is one.
fn by_everybody<'k>(invocation: impl Fn() -> Invocation<'k>, check: impl Fn(Invocation<'k>)) {
    check(invocation());
    if rustix::process::geteuid().is_root() {
        check(invocation().through(["unshare", "--mount", "sh", "-euc", ORDINARY, "sh"]));
    }
}

/// The directories of the cgroup that a process is in, if that is one of kiln's.
fn cgroup_of(pid: u32) -> Vec<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let dirs = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controller, path) = rest.split_once(':')?;
        let ours = path.rsplit('/').next()?.starts_with("kiln-");
        ours.then(|| PathBuf::from(format!("/sys/fs/cgroup/{controller}{path}")))
    });
    dirs.collect()
}

/// Where guests have cgroups; says why the test looks at none where they don't.
fn cgroup_or_reason(pid: u32) -> Vec<PathBuf> {
    let dirs = cgroup_of(pid);
    if dirs.is_empty() {
        let doctor = Kiln::without_images().kiln(["doctor"]).end().stdout();
        let line = doctor.lines().find(|line| line.contains("limits: "));
        let line = line.expect("a line on limits");
        assert!(line.starts_with("--"), "no cgroup, but {line}");
        #[expect(clippy::print_stderr, reason = "what could not be tested is listed")]
        {
            eprintln!("NOT TESTED HERE: {line}");
        }
    }
    dirs
}

/// The first of these files in any of the directories.
fn file(dirs: &[PathBuf], names: [&str; 2]) -> PathBuf {
    let paths = dirs.iter().flat_map(|dir| names.map(|name| dir.join(name)));
    let mut there = paths.filter(|path| path.exists());
    there.next().unwrap_or_else(|| panic!("no {names:?}"))
}

fn number(path: &Path) -> u64 {
    let text = fs::read_to_string(path).expect("a file of the kernel's");
    let word = text.split_whitespace().next().expect("a word");
    word.parse().expect("a number")
}

/// A guest that lives until it is stopped, and its QEMU.
fn stuck(kiln: &Kiln) -> (Running, u32) {
    let run = kiln
        .run(&manifest("stuck"))
        .args(["--no-network", "--cpus", "1"])
        .takes_turns(false);
    let running = run.start();
    let guest = member(running.pid(), "-nodefaults");
    (running, guest.pid)
}

/// QEMU itself: setpriv before it has the same words.
fn executed(pid: u32) {
    eventually("QEMU", Duration::from_secs(20), || {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        name.starts_with("qemu").then_some(())
    });
}

fn stop(running: Running) {
    running.signal(rustix::process::Signal::TERM);
    running.expect_status(130);
}

#[test]
fn a_guest_at_the_limit_of_its_disk_sees_errors_and_its_jobs_end_says_so() {
    let kiln = Kiln::new();
    let tasks = "tasks:\n- fill: |\n    dd if=/dev/urandom of=big bs=1M count=400 conv=fsync\n- after: echo ran\n";
    let limited = || kiln.run(tasks).args(["--no-network", "--disk", "256"]);
    by_everybody(limited, |run| {
        let ended = run.expect_status(1);
        ended.expect_stdout("task fill failed with exit status 1; the guest reached the limit of its disk, 256 MiB: write less, or ask for more with --disk");
        assert!(ended.task_log("fill").contains("rror"), "{ended}");
        assert!(!ended.folder().join("after/log").exists(), "{ended}");
        tells_nothing_of_the_host(&ended, &harness::images());
        scratch_is_gone(ended.folder());
    });
}

#[test]
fn a_guest_below_the_limit_of_its_disk_notices_nothing() {
    let tasks = "tasks:\n- fill: dd if=/dev/urandom of=big bs=1M count=100 conv=fsync\n";
    let run = Kiln::new()
        .run(tasks)
        .args(["--no-network", "--disk", "512"])
        .expect_success();
    assert!(!run.stdout().contains("limit"), "{run}");
}

#[test]
fn qemu_has_resource_limits_and_outlives_a_file_that_is_too_large() {
    let images = Images::new();
    images.with_init("stuck", FOR_EVER);
    let kiln = Kiln::with_images(images.path());
    let (running, qemu) = stuck(&kiln);
    executed(qemu);
    let limits = fs::read_to_string(format!("/proc/{qemu}/limits")).expect("QEMU's limits");
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name));
        let words: Vec<&str> = line.expect(name)[name.len()..].split_whitespace().collect();
        assert_eq!(words[0], words[1], "{name} can be raised: {limits}");
        words[0]
            .parse::<u64>()
            .unwrap_or_else(|_| panic!("{name} has no limit: {limits}"))
    };
    let mib = 1 << 20;
    assert_eq!(limit("Max core file size"), 0);
    assert_eq!(limit("Max msgqueue size"), 0);
    assert!(limit("Max locked memory") <= 64 << 10);
    assert!(limit("Max open files") <= 4096);
    // The image's disk has 64 MiB, its guest 256.
    assert!((64 * mib..70 * mib).contains(&limit("Max file size")));
    assert!((256 * mib..3 * 1024 * mib).contains(&limit("Max data size")));
    let status = fs::read_to_string(format!("/proc/{qemu}/status")).expect("QEMU's status");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.expect("a mask").trim(), 16).expect("a mask");
    // SIGXFSZ is 25.
    assert_eq!(ignored >> 24 & 1, 1, "{status}");
    stop(running);
}

#[test]
fn a_guest_has_a_cgroup_with_limits_and_it_goes_with_the_guest() {
    let images = Images::new();
    images.with_init("stuck", FOR_EVER);
    let kiln = Kiln::with_images(images.path());
    let patience = ["--cpus", "1", "--boot-timeout", "6s"];
    let run = kiln.run(&manifest("stuck")).args(patience);
    let running = run.takes_turns(false).start();
    let qemu = member(running.pid(), "-nodefaults").pid;
    let dirs = cgroup_or_reason(qemu);
    if dirs.is_empty() {
        return stop(running);
    }
    let uplink = member(running.pid(), "slirp4netns").pid;
    // Moved there once it runs.
    eventually(
        "the uplink in the guest's cgroup",
        Duration::from_secs(10),
        || (cgroup_of(uplink) == dirs).then_some(()),
    );
    assert_eq!(cgroup_of(running.pid()), Vec::<PathBuf>::new());
    let memory = number(&file(&dirs, ["memory.limit_in_bytes", "memory.max"]));
    // The guest's 256 MiB, translated code, and QEMU itself.
    assert!((256 << 20..2 << 30).contains(&memory), "{memory}");
    let processes = number(&file(&dirs, ["pids.max", "pids.max"]));
    assert!(processes <= 200, "{processes}");
    let time = number(&file(&dirs, ["cpu.cfs_quota_us", "cpu.max"]));
    assert_eq!(time, 200_000);
    running.expect_status(3);
    assert!(dirs.iter().all(|dir| !dir.exists()), "{dirs:?}");
}

#[test]
fn what_a_killed_kiln_left_of_cgroups_goes_with_the_next_guests_start() {
    let images = Images::new();
    images.with_init("stuck", FOR_EVER);
    let kiln = Kiln::with_images(images.path());
    let (running, qemu) = stuck(&kiln);
    let dirs = cgroup_or_reason(qemu);
    if dirs.is_empty() {
        return stop(running);
    }
    let family = family(running.pid());
    running.signal(rustix::process::Signal::KILL);
    running.end();
    all_gone(&family);
    assert!(dirs.iter().all(|dir| dir.exists()), "{dirs:?}");
    let (running, _) = stuck(&kiln);
    assert!(dirs.iter().all(|dir| !dir.exists()), "{dirs:?}");
    stop(running);
}

#[test]
fn a_qemu_that_takes_more_memory_than_its_cgroup_has_ends_its_job_with_3() {
    let kiln = Kiln::new();
    let server = Server::http(&kiln.dir());
    // Memory of the guest's that QEMU has not touched yet.
    let tasks = format!(
        "tasks:\n- take: |\n    until curl -fso /dev/null http://{}/go; do sleep 0.1; done\n    head -c 900M /dev/zero >/dev/shm/big\n",
        server.in_guest()
    );
    let running = kiln.run(&tasks).args(server.allow()).start();
    running.wait_for_stdout("task take");
    let qemu = member(running.pid(), "-nodefaults").pid;
    let dirs = cgroup_or_reason(qemu);
    if dirs.is_empty() {
        return stop(running);
    }
    let limit = file(&dirs, ["memory.limit_in_bytes", "memory.max"]);
    let taken = file(&dirs, ["memory.usage_in_bytes", "memory.current"]);
    eventually("a lower limit", Duration::from_secs(10), || {
        let lower = number(&taken) + (64 << 20);
        fs::write(&limit, lower.to_string()).ok()
    });
    kiln.file("go", "");
    let ended = running.expect_status(3);
    ended.expect_stdout(
        "task take: the virtual machine took more of the host's memory than it may, and was ended",
    );
    ended.expect_stderr("QEMU ended: out of its memory limit");
    scratch_is_gone(ended.folder());
}

/// Starts processes until it can't.
const BOMB: &str = "default_arch=amd64
i=0
while [ $i -lt 600 ]; do sleep 100 & i=$((i + 1)); done
echo UNBOUNDED >&2
exit 3
";

#[test]
fn an_images_functions_can_start_only_so_many_processes() {
    let images = Images::new();
    images.with_functions("bomb", BOMB);
    let kiln = Kiln::with_images(images.path());
    let run = || {
        kiln.run(&manifest("bomb"))
            .args(["--no-network"])
            .takes_turns(false)
    };
    by_everybody(run, |run| {
        let ended = run.expect_status(3);
        if ended.stderr().contains("UNBOUNDED") && rustix::process::geteuid().is_root() {
            // The kernel counts root's processes in cgroups only.
            assert_eq!(cgroup_or_reason(std::process::id()), Vec::<PathBuf>::new());
            return;
        }
        ended.expect_stderr("Cannot fork");
    });
}

#[test]
fn an_images_functions_can_take_only_so_much_memory() {
    let images = Images::new();
    let hog = "default_arch=amd64\nx=aaaaaaaaaaaaaaaa\nwhile [ ${#x} -lt 400000000 ]; do x=$x$x; done\necho UNBOUNDED >&2\nexit 3\n";
    images.with_functions("hog", hog);
    let kiln = Kiln::with_images(images.path());
    let run = || {
        kiln.run(&manifest("hog"))
            .args(["--no-network"])
            .takes_turns(false)
    };
    by_everybody(run, |run| {
        let ended = run.expect_status(3);
        ended.expect_stderr("`functions` ended with ");
        assert!(!ended.stderr().contains("UNBOUNDED"), "{ended}");
    });
}

/// kiln in a guest of kiln: Debian's systemd has cgroups of version 2.
#[test]
fn version_two_of_cgroups_holds_a_service_and_a_scope_that_systemd_delegates() {
    let kiln = Kiln::new();
    let server = Server::http(&kiln.dir());
    let strip = format!(
        "strip -o kiln {} && gzip -1 kiln",
        env!("CARGO_BIN_EXE_kiln")
    );
    sh(&kiln.dir(), &strip);
    kiln.file("functions", BOMB);
    let tasks = format!(
        "tasks:
- two: |
    chmod a+x ~
    curl -fsS http://{0}/kiln.gz | gunzip >kiln
    sudo install kiln /usr/local/bin
    mkdir -p images/test/bomb/amd64
    : >images/test/bomb/amd64/root.img.qcow2
    curl -fsSo images/test/bomb/functions http://{0}/functions
    printf 'image: test/bomb\\ntasks:\\n- a: echo\\n' >bomb.yml
    export KILN_IMAGES=$PWD/images
    scope='sudo -E systemd-run --quiet --scope -p Delegate=yes'
    service='sudo systemd-run --quiet --pipe --wait -p Delegate=yes -p WorkingDirectory=/home/build'
    set +ex
    echo not delegated: $(sudo kiln doctor | grep limits:)
    echo scope: $($scope kiln doctor | grep limits:)
    echo service: $($service --uid=build -E HOME=$HOME kiln doctor | grep limits:)
    echo bomb: $($scope kiln run --no-network bomb.yml 2>&1)
    echo left: $(find /sys/fs/cgroup -name 'kiln-[0-9]*')
",
        server.in_guest()
    );
    let run = kiln.run(&tasks).args(server.allow()).arg("--cold");
    let ended = run.expect_success();
    let cgroups = "OK limits: each guest has a cgroup (version 2: memory, pids, cpu)";
    let log = ended.task_log("two");
    let line = |name: &str| {
        let found = log.lines().find(|line| line.starts_with(name));
        found.unwrap_or_else(|| panic!("no {name} in {ended}"))
    };
    assert!(
        line("not delegated: ").starts_with("not delegated: -- limits: guests have no cgroup"),
        "{ended}"
    );
    assert_eq!(line("scope: "), format!("scope: {cgroups}"));
    assert_eq!(line("service: "), format!("service: {cgroups}"));
    assert!(line("bomb: ").ends_with("Cannot fork"), "{ended}");
    assert_eq!(line("left:"), "left:");
}
