//! Guests from one template are machines of their own.

use std::{
    collections::HashSet,
    io::Write as _,
    net::TcpListener,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::harness::Kiln;

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

#[test]
fn a_guest_can_be_booted_instead() {
    let ended = Kiln::new()
        .run("tasks:\n- hello: echo hi\n")
        .arg("--cold")
        .arg("-v")
        .expect_success();
    ended.expect_stderr("boot and login");
}
