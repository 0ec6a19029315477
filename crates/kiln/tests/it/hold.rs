//! Guests that stay when their tasks have ended.

use crate::harness::Kiln;

#[test]
fn a_failed_guest_is_kept_and_kiln_ssh_enters_it() {
    let kiln = Kiln::new();
    let kept = kiln
        .run("tasks:\n- fail: |\n    echo found >evidence\n    exit 7\n- never: echo\n")
        .arg("--keep")
        .start();
    kept.wait_for_stderr("the guest waits: `kiln ssh");
    let visit = kiln
        .kiln(["ssh", "--", "cat evidence; hostname; exit 3"])
        .expect_status(3);
    assert_eq!(visit.stdout(), "found\nbuild\n");
    // The visitor has left: so does the guest.
    let ended = kept.expect_status(1);
    ended.expect_stdout("task fail failed with exit status 7");
    assert!(!ended.folder().join(".guest").exists(), "{ended}");
    kiln.kiln(["ssh"])
        .expect_status(2)
        .expect_stderr("no run has a guest that waits");
}

#[test]
fn complete_build_ends_a_build_early_and_shell_true_keeps_its_guest() {
    let kiln = Kiln::new();
    let kept = kiln
        .run(
            r#"
shell: true
tasks:
- decide: |
    echo built >result
    complete-build
    echo not reached
- skipped: exit 1
artifacts: [result]
"#,
        )
        .arg("--json")
        .start();
    kept.wait_for_stderr("the guest waits: `kiln ssh");
    let run = kept.folder();
    let run = run.file_name().expect("a name");
    let visit = kiln
        .kiln(["ssh"])
        .arg(run)
        .args(["--", "cat", "result"])
        .expect_success();
    assert_eq!(visit.stdout(), "built\n");
    let ended = kept.expect_status(0);
    assert!(
        !ended
            .task_log("decide")
            .lines()
            .any(|line| line == "not reached"),
        "{ended}"
    );
    assert_eq!(ended.artifact("result"), b"built\n");
    let events = ended.events();
    let skipped = events
        .iter()
        .find(|event| event["task"] == "skipped")
        .expect("an event");
    assert_eq!(skipped["status"], "skipped");
    let end = events.last().expect("events");
    assert_eq!(end["reason"], "task decide completed the build");
}

#[test]
fn a_shell_in_the_guest_follows_the_tasks() {
    let ended = Kiln::new()
        .run("tasks:\n- leave: echo something >left\n")
        .arg("--shell")
        .stdin("echo \"here: $(hostname) $(cat left)\"\nexit\n")
        .expect_success();
    ended.expect_stdout("here: build something");
}
