//! Command lines, secrets and artifacts that can't be right.

use std::time::Duration;

use crate::harness::Kiln;

const TASK: &str = "tasks:\n- hello: echo hi\n";

#[track_caller]
fn is_refused(words: &[&str], why: &str) {
    let kiln = Kiln::dummy();
    let ended = kiln.run(TASK).args(words).expect_status(2);
    ended.expect_stderr(why);
    assert!(!kiln.runs().exists(), "a run was made by {ended}");
}

#[test]
fn options_that_make_no_sense_end_with_2_before_a_run_is_made() {
    for (words, why) in [
        (["--allow", "localhost"], "needs a port"),
        (["--allow", "localhost:99999"], "is no port"),
        (["--allow", ":80"], "names no host"),
        (["--allow", ""], "names no host"),
        (["--allow", "10.0.0.0/8"], "names no host"),
        (["--allow", "[::1"], "a bracket is open"),
        (["--allow", "fe80::1"], "guests have no IPv6"),
        (["--allow", "10.0.2.2"], "name localhost:PORT"),
        (["--allow", "nobody.invalid"], "--allow nobody.invalid: "),
        (["-e", "A"], "a value is missing"),
        (["-e", "1A=x"], "`1A` cannot be the name of a variable"),
        (["-e", "=x"], "`` cannot be the name of a variable"),
        (["--timeout", "0"], "`0` is no time"),
        (["--timeout", "soon"], "`soon` is no time"),
        (["--memory", "1"], "too little or too much memory"),
        (["--memory", "99999999999"], "too little or too much memory"),
        (
            ["--disk", "255"],
            "a guest needs 256 MiB of disk at the least",
        ),
        (["--disk", "some"], "`some` is no size"),
        (["--cpus", "0"], "--cpus"),
        (["--log-limit", "x"], "`x` is no size"),
        (["--arch", "../x"], "cannot be an architecture"),
        (["--artifacts", "/etc/passwd"], "--artifacts /etc/passwd: "),
        (["--nonsense", "x"], "--nonsense"),
    ] {
        is_refused(&words, why);
    }
}

#[test]
fn secrets_that_nobody_gave_or_can_read_end_with_2_and_their_names() {
    let kiln = Kiln::dummy();
    kiln.file("value", "s3cret\n");
    kiln.file("huge", vec![b'x'; (1 << 20) + 1]);
    let manifest = format!("secrets: [deploy-key, token]\n{TASK}");
    for (words, why) in [
        (
            &[][..],
            "the manifest's secrets deploy-key, token were not given",
        ),
        (
            &["--secret", "token=value"],
            "secrets deploy-key were not given",
        ),
        (
            &["--secret", "token=missing"],
            "--secret token: missing: No such file",
        ),
        (
            &["--secret", "token=."],
            "--secret token: .: is a directory",
        ),
        (&["--secret", "token=huge"], "more than 1 MiB"),
        (&["--secret", "token=/dev/zero"], "more than 1 MiB"),
        (&["--secret", "token"], "write it as NAME=FILE"),
        (
            &["--secret", "token=file:value"],
            "write it as NAME=file:FILE:PATH",
        ),
        (
            &["--secret", "token=file:value:x:999"],
            "write it as NAME=file:FILE:PATH",
        ),
    ] {
        kiln.run(&manifest)
            .args(words)
            .expect_status(2)
            .expect_stderr(why);
    }
    assert!(!kiln.runs().exists());
}

#[test]
fn the_last_of_two_files_for_one_secret_counts() {
    let kiln = Kiln::dummy();
    kiln.file("one", "first\n");
    kiln.file("two", "second\n");
    let ended = kiln
        .run("secrets: [token]\ntasks:\n- show: cat ~/t\n")
        .args([
            "--secret",
            "token=file:one:t",
            "--secret",
            "token=file:two:t",
        ])
        .expect_success();
    ended.expect_line("show", "second");
    assert!(!ended.task_log("show").contains("first"));
}

#[test]
fn artifacts_that_can_not_be_kept_are_all_named_and_the_others_stay() {
    let kiln = Kiln::dummy();
    let ended = kiln
        .run(
            "artifacts: [missing, dir, sparse, pipe, with blanks, \"-dash\"]\n\
             tasks:\n- make: |\n    mkdir dir\n    truncate -s 2G sparse\n    mkfifo pipe\n    \
             echo b >'with blanks'\n    echo d >./-dash\n",
        )
        .expect_status(1);
    for why in [
        "missing does not exist",
        "dir is a directory",
        "sparse is 2 GiB large; an artifact may have 1 GiB",
        "pipe is no regular file",
    ] {
        ended.expect_log(why);
    }
    assert_eq!(ended.artifact("with blanks"), b"b\n");
    assert_eq!(ended.artifact("-dash"), b"d\n");
}

#[test]
fn an_artifact_of_two_lines_is_refused_before_anything_runs() {
    let kiln = Kiln::dummy();
    let ended = kiln
        .run(&format!("artifacts: [\"two\\nlines\"]\n{TASK}"))
        .expect_status(2);
    ended.expect_stderr("the artifact `two\\nlines` has a control character in it");
}

#[test]
fn an_artifact_that_changes_while_it_is_read_is_refused() {
    let kiln = Kiln::dummy();
    let writer = "( while :; do echo more >>growing; done ) >/dev/null 2>&1 </dev/null &";
    let ended = kiln
        .run(&format!(
            "artifacts: [growing]\ntasks:\n- make: |\n    head -c 50M /dev/zero >growing\n    {writer}\n"
        ))
        .limit(Duration::from_secs(60))
        .expect_status(1);
    ended.expect_log("growing changed while it was read");
    assert!(!ended.folder().join("artifacts/growing").exists());
}

#[test]
fn time_that_runs_out_in_a_task_or_an_artifact_ends_with_124() {
    let kiln = Kiln::dummy();
    let in_task = "tasks:\n- wait: hang\n";
    let in_artifacts = "artifacts: [large]\ntasks:\n- make: truncate -s 1G large\n";
    for (manifest, during) in [(in_task, "task wait"), (in_artifacts, "artifacts: large")] {
        let ended = kiln
            .run(manifest)
            .args(["--timeout", "1s"])
            .expect_status(124);
        ended
            .expect_log(during)
            .expect_log("the job took longer than the 1.0 s it may");
        assert!(ended.took < Duration::from_secs(20), "{during}: {ended}");
    }
}
