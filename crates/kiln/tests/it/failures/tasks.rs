//! Tasks that take their guest, or its output, to pieces.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::support::{all_gone, family, scratch_is_gone, tells_nothing_of_the_host};
use crate::harness::{self, Ended, Kiln, Running};

/// Much less than what the guests below say.
const FLAT: u64 = 100 << 20;

/// The most memory that kiln itself had, until the run's end.
#[track_caller]
fn memory_until_the_end(running: Running) -> (u64, Ended) {
    let status = format!("/proc/{}/status", running.pid());
    let (since, mut most) = (Instant::now(), 0);
    while let Some(kib) = high_water(&fs::read_to_string(&status).unwrap_or_default()) {
        most = most.max(kib << 10);
        assert!(
            since.elapsed() < Duration::from_secs(170),
            "it does not end"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    (most, running.end())
}

/// Absent for a process that has ended.
fn high_water(status: &str) -> Option<u64> {
    let row = status.lines().find_map(|row| row.strip_prefix("VmHWM:"))?;
    row.trim().strip_suffix(" kB")?.parse().ok()
}

#[test]
fn a_guest_that_ends_in_a_task_fails_the_build_and_says_how() {
    let kiln = Kiln::new();
    for (how, why) in [
        (
            "sudo poweroff -f",
            "task end: the guest was powered off from inside",
        ),
        (
            "echo c | sudo tee /proc/sysrq-trigger",
            "task end: the guest's kernel panicked",
        ),
    ] {
        let manifest = format!(
            "tasks:\n- end: |\n    echo before\n    {how}\n    sleep 60\n- next: echo no\n"
        );
        let ended = kiln.run(&manifest).args(["--no-network"]).expect_status(1);
        ended.expect_line("end", "before").expect_log(why);
        tells_nothing_of_the_host(&ended, &harness::images());
        scratch_is_gone(ended.folder());
    }
}

#[test]
fn a_task_that_ends_kilns_way_into_the_guest_fails_and_says_so() {
    let kiln = Kiln::new();
    // With and without the helper in the guest.
    for (option, end) in [("--no-network", "guest-agent"), ("--cold", "sshd: build")] {
        let manifest =
            format!("tasks:\n- cut: |\n    echo before\n    sudo pkill -f '{end}'\n    sleep 60\n");
        let ended = kiln.run(&manifest).args([option]).expect_status(1);
        ended
            .expect_line("cut", "before")
            .expect_log("task cut: the connection to the guest was lost");
        tells_nothing_of_the_host(&ended, &harness::images());
    }
}

#[test]
fn a_full_disk_and_any_bytes_are_a_tasks_own_matter() {
    let kiln = Kiln::new();
    let manifest = r"tasks:
- fill: |
    room=$(df --output=avail -B1 . | tail -n 1)
    fallocate -l $((room - 50000000)) most
    ! head -c 100M /dev/zero >rest
    rm most rest
- bytes: printf 'a\0b\377\033[2Jc\n'
- line: head -c 100M /dev/zero | tr '\0' x
- after: echo still here
";
    let run = kiln
        .run(manifest)
        .args(["--no-network", "--log-limit", "1M"]);
    let (memory, ended) = memory_until_the_end(run.start());
    assert_eq!(ended.status.code(), Some(0), "{ended}");
    assert!(memory < FLAT, "{memory} bytes");
    assert!(
        ended.task_log("fill").contains("No space left on device"),
        "{ended}"
    );
    let bytes = ended.task_log_bytes("bytes");
    assert!(
        bytes.windows(9).any(|found| found == b"a\0b\xff\x1b[2Jc"),
        "{ended}"
    );
    assert!(ended.task_log_bytes("line").len() < (1 << 20) + 1000);
    assert!(
        ended
            .task_log("line")
            .contains("the limit of 1 MiB for this log is reached")
    );
    ended.expect_line("after", "still here");
}

#[test]
fn a_fork_bomb_and_a_flood_end_at_the_deadline() {
    let kiln = Kiln::new();
    let manifest = "tasks:\n- bomb: |\n    bomb() { bomb | bomb & }; bomb\n    yes\n";
    let run = kiln
        .run(manifest)
        .args(["--no-network", "--log-limit", "1M", "--timeout", "40s"]);
    let running = run.start();
    running.wait_for_stdout("task bomb");
    let processes = family(running.pid());
    let (memory, ended) = memory_until_the_end(running);
    all_gone(&processes);
    assert_eq!(ended.status.code(), Some(124), "{ended}");
    assert!(memory < FLAT, "{memory} bytes");
    assert!(ended.took < Duration::from_secs(55), "{ended}");
    scratch_is_gone(ended.folder());
}

#[test]
fn two_gigabytes_of_output_take_no_memory() {
    let kiln = Kiln::dummy();
    for how in ["flood 1000000000 long", "flood 1000000000"] {
        let run = kiln
            .run(&format!("tasks:\n- flood: {how}\n"))
            .args(["--log-limit", "1M"]);
        let (memory, ended) = memory_until_the_end(run.start());
        assert_eq!(ended.status.code(), Some(0), "{ended}");
        assert!(memory < FLAT, "{memory} bytes of {how}");
        assert!(ended.task_log_bytes("flood").len() < (1 << 20) + 1000);
    }
}
