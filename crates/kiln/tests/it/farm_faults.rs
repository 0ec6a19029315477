//! What the owner of a job sees when workers and servers die, freeze and come
//! back. With real guests.

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::Farm;

/// A task that counts for a while.
const COUNTS: &str = "tasks:
- count: |
    set +x
    for number in $(seq 1 100); do echo \"number $number\"; sleep 0.2; done
";

/// A job that needs long before its first task: it installs a package by the
/// slowest way there is, a repository that does not answer for a while.
const PREPARES: &str = "packages:
- jq
tasks:
- once: |
    set +x
    echo \"ran once\"
";

/// A task that waits for its end.
const WAITS: &str = "tasks:
- wait: |
    set +x
    echo waiting
    sleep 900
- never: echo never
";

fn status(shown: &Value) -> (&str, Vec<&str>) {
    let tasks = shown["tasks"].as_array().expect("tasks");
    let tasks = tasks
        .iter()
        .map(|task| task["status"].as_str().expect("a status"));
    (shown["status"].as_str().expect("a status"), tasks.collect())
}

fn reason(shown: &Value) -> &str {
    shown["reason"].as_str().unwrap_or_default()
}

#[test]
fn a_worker_that_is_killed_in_a_task_costs_the_job_and_no_task_runs_again() {
    let farm = Farm::start();
    let worker = farm.worker("one");
    let follows = farm.submit(WAITS).arg("--follow").start();
    farm.wait_for_log("1", "waiting");
    worker.signal(Signal::KILL);
    drop(worker);
    let _other = farm.worker("other");
    let ended = follows.expect_status(4);
    let shown = farm.show("1");
    assert_eq!(status(&shown), ("FAILED", vec!["FAILED", "SKIPPED"]));
    assert!(reason(&shown).contains("worker"), "{shown:#}");
    assert!(ended.stdout().contains(reason(&shown)), "{ended}");
    assert_eq!(shown["attempts"].as_array().map(Vec::len), Some(1));
    assert_eq!(farm.log("1").matches("waiting\n").count(), 1);
}

#[test]
fn a_worker_that_is_killed_before_the_first_task_costs_only_time() {
    let farm = Farm::start();
    let worker = farm.worker("one");
    let job = farm.job(PREPARES);
    farm.wait_for_log(&job, "packages: jq");
    worker.signal(Signal::KILL);
    drop(worker);
    let _other = farm.worker("other");
    let shown = farm.wait_for_end(&job);
    assert_eq!(status(&shown), ("SUCCESS", vec!["SUCCESS"]), "{shown:#}");
    assert_eq!(shown["attempts"].as_array().map(Vec::len), Some(2));
    let log = farm.log(&job);
    assert!(log.contains("attempt 2"), "{log}");
    assert_eq!(log.matches("ran once").count(), 1, "{log}");
}

#[test]
fn a_worker_that_was_frozen_past_its_lease_finds_its_job_gone_and_its_guest_ends() {
    let farm = Farm::start();
    let worker = farm.worker("one");
    let job = farm.job(WAITS);
    farm.wait_for_log(&job, "waiting");
    worker.signal(Signal::STOP);
    let shown = farm.wait_for_end(&job);
    assert_eq!(status(&shown), ("FAILED", vec!["FAILED", "SKIPPED"]));
    worker.signal(Signal::CONT);
    worker.wait_for_stderr(&format!("job {job} is not this worker's any more"));
    // It is well, and goes on with others.
    let next = farm.job("tasks:\n- next: echo next\n");
    assert_eq!(status(&farm.wait_for_end(&next)).0, "SUCCESS");
    assert_eq!(farm.show(&job), shown, "it ended twice");
}

#[test]
fn a_worker_that_was_frozen_before_the_first_task_starts_none() {
    let farm = Farm::start();
    let worker = farm.worker("one");
    let job = farm.job(PREPARES);
    farm.wait_for_log(&job, "packages: jq");
    worker.signal(Signal::STOP);
    let _other = farm.worker("other");
    let shown = farm.wait_for_end(&job);
    assert_eq!(status(&shown), ("SUCCESS", vec!["SUCCESS"]), "{shown:#}");
    worker.signal(Signal::CONT);
    worker.wait_for_stderr(&format!("job {job} is not this worker's any more"));
    assert_eq!(farm.log(&job).matches("ran once").count(), 1);
    assert_eq!(farm.show(&job), shown, "it ended twice");
}

#[test]
fn a_server_that_is_killed_in_a_task_costs_nothing_and_no_byte_of_the_log() {
    let mut farm = Farm::start();
    let _worker = farm.worker("one");
    let job = farm.job(COUNTS);
    farm.wait_for_log(&job, "number 3\n");
    let before = farm.log(&job);
    farm.kill();
    std::thread::sleep(std::time::Duration::from_secs(3));
    farm.go_on();
    let after = farm.log(&job);
    assert!(
        after.starts_with(&before),
        "it was:\n{before}\nand is:\n{after}"
    );
    let shown = farm.wait_for_end(&job);
    assert_eq!(status(&shown), ("SUCCESS", vec!["SUCCESS"]), "{shown:#}");
    let log = farm.log(&job);
    let numbers = log.lines().filter(|line| line.starts_with("number "));
    let wanted: Vec<String> = (1..=100).map(|number| format!("number {number}")).collect();
    assert_eq!(numbers.collect::<Vec<_>>(), wanted);
}

#[test]
fn a_server_that_is_killed_before_the_first_task_costs_nothing() {
    let mut farm = Farm::start();
    let _worker = farm.worker("one");
    let job = farm.job(PREPARES);
    farm.wait_for_log(&job, "packages: jq");
    farm.kill();
    farm.go_on();
    let shown = farm.wait_for_end(&job);
    assert_eq!(status(&shown), ("SUCCESS", vec!["SUCCESS"]), "{shown:#}");
    assert_eq!(shown["attempts"].as_array().map(Vec::len), Some(1));
    assert_eq!(farm.log(&job).matches("ran once").count(), 1);
}

#[test]
fn a_cancel_reaches_a_running_guest() {
    let farm = Farm::start();
    let worker = farm.worker("one");
    let follows = farm.submit(WAITS).arg("--follow").start();
    farm.wait_for_log("1", "waiting");
    farm.client(["cancel", "1"]).expect_success();
    let shown = farm.show("1");
    assert_eq!(status(&shown), ("CANCELLED", vec!["FAILED", "SKIPPED"]));
    worker.wait_for_stderr("job 1 is not this worker's any more: the server has ended its lease");
    follows.expect_status(4);
}

#[test]
fn who_follows_a_job_reads_each_line_once_though_the_server_was_away() {
    let mut farm = Farm::start();
    let _worker = farm.dummy_worker("one");
    let go = farm.dir().join("go");
    let follows = farm
        .submit(&format!(
            "tasks:\n- talk: |\n    set +x\n    echo one; echo two\n    until [ -e {} ]; do sleep 0.1; done\n    echo three; echo four\n",
            go.display()
        ))
        .arg("--follow")
        .start();
    follows.wait_for_stdout("two\n");
    farm.kill();
    farm.go_on();
    std::fs::write(go, "").expect("a file");
    let said = follows.expect_status(0).stdout();
    for line in ["\none\n", "\ntwo\n", "\nthree\n", "\nfour\n"] {
        assert_eq!(said.matches(line).count(), 1, "{line:?} in:\n{said}");
    }
}
