//! Guests from one template are machines of their own.

use std::{
    collections::HashSet,
    fs,
    io::Write as _,
    net::TcpListener,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::harness::{self, IMAGE, Kiln};

/// How many guests are compared.
const CLONES: usize = 50;

/// Sixteen bytes each from all that programs draw from, and what names a
/// machine. Python comes with a kept guest, which all of them start from.
const DRAW: &str = r"packages: [python3-minimal]
tasks:
- draw: |
    { set +x; } 2>/dev/null
    cat /etc/machine-id /proc/sys/kernel/random/boot_id
    for i in 1 2 3 4; do head -c 16 /dev/urandom | od -An -tx1 | tr -d ' '; done
    perl -e 'syscall(318, my $bytes = chr(0) x 16, 16, 0); print unpack(q(H*), $bytes), qq(\n)'
    openssl rand -hex 16
    python3 -c 'import os; print(os.urandom(16).hex())'
";

#[test]
fn fifty_clones_of_one_template_never_draw_the_same_numbers() {
    let kiln = Kiln::new();
    let mut seen = HashSet::new();
    for _ in 0..CLONES {
        let ended = kiln.run(DRAW).expect_success();
        let log = ended.task_log("draw");
        let drawn: Vec<&str> = log
            .lines()
            .filter(|line| {
                line.len() >= 32 && line.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
            })
            .collect();
        assert_eq!(drawn.len(), 9, "{log}");
        for number in drawn {
            assert!(seen.insert(number.to_owned()), "drawn twice: {number}");
        }
    }
}

/// Tells the time to whoever connects, once.
fn clock() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

fn tell(listener: &TcpListener) {
    let (mut guest, _) = listener.accept().expect("a guest");
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("a time after 1970").as_secs_f64();
    writeln!(guest, "{now:.6}").expect("a reader");
}

#[test]
fn a_clones_clock_is_the_hosts_before_its_first_task() {
    let (listener, port) = clock();
    // The shell's own clock, so that no program's start is measured.
    let manifest = format!(
        "tasks:\n- clock: |\n    {{ set +x; }} 2>/dev/null\n    exec 3<>/dev/tcp/10.0.2.2/{port}\n    read -r host <&3\n    echo clocks $host $EPOCHREALTIME\n"
    );
    let telling = std::thread::spawn(move || tell(&listener));
    let ended = Kiln::new()
        .run(&manifest)
        .args(["--allow", &format!("localhost:{port}")])
        .expect_success();
    telling.join().expect("a clock");
    let log = ended.task_log("clock");
    let clocks = log.lines().find_map(|line| line.strip_prefix("clocks "));
    let clocks: Vec<f64> = clocks
        .expect("two times")
        .split(' ')
        .map(|time| time.parse().expect("a time"))
        .collect();
    // What an emulated guest's clock may be off.
    let off = clocks[1] - clocks[0];
    assert!(off.abs() < 0.5, "the guest's clock is off by {off} s");
}

/// What every clone must have of its own, and what it must still be able to do.
const OWN: &str = r"packages: [jq]
tasks:
- first: |
    { set +x; } 2>/dev/null
    cat /etc/machine-id /proc/sys/kernel/random/boot_id
    head -c 16 /dev/urandom | od -An -tx1 | tr -d ' '
    echo '{}' | jq -c .
- contain: |
    # The kernel refuses this where no /proc is seen whole.
    unshare --user --map-root-user --pid --fork --mount-proc sh -c 'echo pid $$'
";

fn own(kiln: &Kiln) -> Vec<String> {
    let ended = kiln.run(OWN).arg("-v").expect_success();
    ended.expect_stderr("template: identity");
    ended.expect_line("contain", "pid 1");
    let log = ended.task_log("first");
    let own = log.lines().filter(|line| line.len() >= 32);
    own.map(str::to_owned).collect()
}

#[test]
fn clones_are_their_own_also_without_the_helper_in_the_guest() {
    // As an image of somebody else's, who knows no helper.
    let images = tempfile::tempdir().expect("a directory");
    let (from, to) = (
        harness::images().join("debian"),
        images.path().join("debian"),
    );
    let here = Path::new(IMAGE).file_name().expect("a release");
    fs::create_dir_all(to.join(here).join("amd64")).expect("a directory");
    for file in ["root.img.qcow2", "vmlinuz", "initrd.img"] {
        let file = Path::new(here).join("amd64").join(file);
        fs::copy(from.join(&file), to.join(&file)).expect("a copy");
    }
    fs::copy(
        from.join(here).join("functions"),
        to.join(here).join("functions"),
    )
    .expect("a copy");
    let functions = fs::read_to_string(from.join("functions")).expect("functions");
    let masked = functions.replace(" audit=0", " audit=0 systemd.mask=kiln-guest.service");
    assert_ne!(functions, masked);
    fs::write(to.join("functions"), masked).expect("functions");
    let (with, without) = (Kiln::new(), Kiln::with_images(images.path()));
    let mut seen = HashSet::new();
    for kiln in [&with, &with, &without, &without, &without] {
        let own = own(kiln);
        assert_eq!(own.len(), 3, "{own:?}");
        assert!(own.iter().all(|each| seen.insert(each.clone())), "{own:?}");
    }
}

#[test]
fn a_guest_can_be_booted_instead() {
    let ended = Kiln::new()
        .run("tasks:\n- hello: echo hi\n")
        .arg("--cold")
        .arg("-v")
        .expect_success();
    ended.expect_stderr("boot and login");
}
