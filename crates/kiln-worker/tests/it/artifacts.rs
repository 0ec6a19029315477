//! Artifacts: what is kept, and why something is not.

use kiln_core::job::JobStatus;
use kiln_worker::{Cause, Step};

use crate::harness::{Build, Ran};

fn with_artifacts(artifacts: &str, script: &str) -> Build {
    let script = script.replace('\n', "\n    ");
    Build::of(&format!(
        "artifacts: {artifacts}\ntasks:\n- build: |\n    {script}\n"
    ))
}

#[track_caller]
fn refused(ran: &Ran, why: &str) {
    assert_eq!(ran.outcome.status, JobStatus::Failed);
    let step = Step::Artifacts;
    assert_eq!(ran.outcome.cause, Cause::StepFailed { step });
    assert_eq!(ran.reason(), format!("artifacts: {why}"));
}

#[tokio::test]
async fn a_file_is_kept_with_its_size_and_digest() {
    let ran = with_artifacts("[out/a b.bin, ~/c, $(d)]", "mkdir out; printf 'abc' >'out/a b.bin'; ln -s 'out/a b.bin' c\nprintf '\\000\\377' >'$(d)'").run().await;
    assert_eq!(ran.outcome.status, JobStatus::Success, "{}", ran.all_text());
    assert_eq!(ran.kept(), ["$(d)", "a b.bin", "c"]);
    assert_eq!(ran.artifact("a b.bin"), b"abc");
    assert_eq!(ran.artifact("$(d)"), b"\0\xff");
    let artifact = &ran.outcome.artifacts[0];
    assert_eq!((artifact.index, artifact.size), (0, 3));
    assert_eq!(artifact.path, "out/a b.bin");
    assert_eq!(
        artifact.sha256,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    let told = ran
        .json()
        .into_iter()
        .find(|e| e["event"] == "artifact")
        .unwrap();
    assert_eq!(told["file"], "a b.bin");
}

#[tokio::test]
async fn an_absolute_path_and_an_empty_file_are_kept() {
    let build = with_artifacts("[]", "touch empty");
    let path = build.home().join("empty").to_str().unwrap().to_owned();
    let mut build = build;
    build.job.manifest.artifacts = Some(vec![path]);
    let ran = build.run().await;
    assert_eq!(ran.outcome.status, JobStatus::Success, "{}", ran.all_text());
    assert_eq!(ran.artifact("empty"), b"");
}

#[tokio::test]
async fn a_missing_one_fails_the_job_and_the_others_are_kept() {
    let ran = with_artifacts("[no, yes, nor]", "echo >yes").run().await;
    refused(&ran, "no does not exist; nor does not exist");
    assert_eq!(ran.kept(), ["yes"]);
    assert_eq!(ran.tasks(), "build=success");
}

#[tokio::test]
async fn what_is_no_file_is_refused_with_the_remedy() {
    let ran = with_artifacts("[dir]", "mkdir dir").run().await;
    refused(
        &ran,
        "dir is a directory: pack it in a task, for example with tar",
    );
    let ran = with_artifacts("[pipe]", "mkfifo pipe").run().await;
    refused(&ran, "pipe is no regular file");
    assert_eq!(ran.kept(), [""; 0]);
}

#[tokio::test]
async fn one_that_is_too_large_is_refused() {
    let ran = with_artifacts("[big]", "flood 3000 >big")
        .limited(|limits| limits.artifact = 2048)
        .run()
        .await;
    refused(&ran, "big is 2.9 KiB large; an artifact may have 2 KiB");
    assert_eq!(ran.kept(), [""; 0]);
}

#[tokio::test]
async fn one_that_changes_while_it_is_read_is_refused() {
    // `cat` is what reads the file; here it changes the file besides.
    let table = [
        "/bin/cat \"$@\"; echo >>\"$2\"",
        "/bin/cat \"$@\"; echo more",
        "truncate -s 1 \"$2\"; /bin/cat \"$@\"",
        "/bin/cat \"$@\"; touch -d yesterday \"$2\"",
        "/bin/cat \"$@\"; cp \"$2\" x; mv x \"$2\"",
        "yes",
    ];
    for reader in table {
        let reader = format!("case $1 in --) {reader};; *) exec /bin/cat;; esac");
        let ran = with_artifacts("[out]", "echo hello >out")
            .with_word("cat", &reader)
            .run()
            .await;
        refused(&ran, "out changed while it was read");
        assert_eq!(ran.kept(), [""; 0]);
    }
}

#[tokio::test]
async fn one_that_cannot_be_read_is_refused() {
    let reader = "case $1 in --) exit 1;; *) exec /bin/cat;; esac";
    let ran = with_artifacts("[out]", "echo >out")
        .with_word("cat", reader)
        .run()
        .await;
    refused(&ran, "out could not be read");
}

#[tokio::test]
async fn equal_names_are_kept_apart_and_none_leads_out() {
    let ran = with_artifacts(
        "[a/x, b/x, ../home/x]",
        "mkdir a b; echo a >a/x; echo b >b/x; echo c >x",
    )
    .run()
    .await;
    assert_eq!(ran.outcome.status, JobStatus::Success, "{}", ran.all_text());
    assert_eq!(ran.kept(), ["2-x", "3-x", "x"]);
    assert_eq!(ran.artifact("x"), b"a\n");
    assert_eq!(ran.artifact("2-x"), b"b\n");
    assert_eq!(ran.artifact("3-x"), b"c\n");
}

#[tokio::test]
async fn a_build_that_failed_keeps_none() {
    let ran = with_artifacts("[out]", "echo >out; fail 1").run().await;
    assert_eq!(ran.reason(), "task build failed with exit status 1");
    assert_eq!(ran.kept(), [""; 0]);
}

#[tokio::test]
async fn a_host_that_cannot_store_one_says_so_and_shows_nothing_of_itself() {
    let ran = {
        let mut build = with_artifacts("[out]", "echo >out");
        build.job.artifacts_dir = build.folder.path().join("nowhere");
        build.run().await
    };
    assert_eq!(ran.outcome.cause, Cause::HostFailed);
    assert_eq!(ran.reason(), "artifacts: the host could not store out");
    assert!(!ran.all_text().contains("nowhere"));
    assert!(ran.outcome.operator.is_some());
}
