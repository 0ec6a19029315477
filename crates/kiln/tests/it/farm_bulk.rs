//! Logs that are larger than anybody's memory should be. On the dummy machine,
//! since the guest is not what is tried.

use crate::harness::{Farm, Running};

/// What no side may need at any time, in KiB: a multiple of what it needs for a
/// small job, and a fraction of the log.
const MEMORY: u64 = 120 << 10;

/// The most memory that a process has had, in KiB.
fn peak(running: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid()));
    let status = status.expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let words = line.expect("its peak").trim().trim_end_matches(" kB");
    words.parse().expect("a number")
}

#[test]
fn five_million_lines_go_through_in_flat_memory_and_none_is_missing() {
    let farm = Farm::start();
    let worker = farm.dummy_worker("one");
    // 40 bytes a line: 200 MB.
    let job = farm.job("tasks:\n- many: |\n    set +x\n    seq -f 'line %034.0f' 5000000\n");
    let shown = farm.wait_for_end(&job);
    assert_eq!(shown["status"], "SUCCESS", "{shown:#}");

    let log = farm
        .client(["logs", "--task", "many", &job])
        .expect_success();
    let mut expected = 0u64;
    for line in log.stdout().lines() {
        let Some(number) = line.strip_prefix("line ") else {
            assert!(expected == 0, "in the middle: {line}");
            continue;
        };
        expected += 1;
        assert_eq!(number.parse(), Ok(expected), "{line}");
    }
    assert_eq!(expected, 5_000_000);
    for (what, process) in [("worker", &worker), ("server", farm.server())] {
        let peak = peak(process);
        assert!(peak < MEMORY, "the {what} needed {} MiB", peak >> 10);
    }
}
