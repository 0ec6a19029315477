//! Guests from one template are machines of their own.

use std::{collections::HashSet, time::UNIX_EPOCH};

use crate::harness::Kiln;

const DRAW: &str = r"tasks:
- draw: |
    set +x
    cat /etc/machine-id /proc/sys/kernel/random/boot_id
    for i in 1 2 3 4 5 6 7 8; do head -c 16 /dev/urandom | od -An -tx1 | tr -d ' '; done
    openssl rand -hex 16
    perl -e 'syscall(318, my $bytes = chr(0) x 16, 16, 0); print unpack(q(H*), $bytes), qq(\n)'
";

#[test]
fn clones_of_one_template_never_draw_the_same_numbers() {
    let kiln = Kiln::new();
    let mut seen = HashSet::new();
    for _ in 0..6 {
        let ended = kiln.run(DRAW).expect_success();
        let log = ended.task_log("draw");
        let drawn: Vec<&str> = log
            .lines()
            .filter(|line| {
                line.len() >= 32 && line.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
            })
            .collect();
        assert_eq!(drawn.len(), 12, "{log}");
        for number in drawn {
            assert!(seen.insert(number.to_owned()), "drawn twice: {number}");
        }
    }
}

#[test]
fn a_clones_clock_is_the_hosts() {
    let now = || {
        UNIX_EPOCH
            .elapsed()
            .expect("a time after 1970")
            .as_secs_f64()
    };
    let before = now();
    let ended = Kiln::new()
        .run("tasks:\n- clock: date +%s.%N\n")
        .expect_success();
    let after = now();
    let log = ended.task_log("clock");
    let guest = log
        .lines()
        .find_map(|line| line.parse::<f64>().ok())
        .expect("a time");
    // Half a second is what an emulated guest's clock may be off.
    assert!(
        guest > before - 0.5 && guest < after + 0.5,
        "{before} {guest} {after}"
    );
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
