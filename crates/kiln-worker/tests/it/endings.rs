//! Every way in which a job ends other than well, with its own message.

use std::time::Duration;

use kiln_core::job::{JobStatus, TaskStatus};
use kiln_vm::dummy::{Call, Dummy, Start};
use kiln_worker::{Cause, Step};

use crate::harness::Build;

const ALL_STEPS: &str = "packages: [jq]\nrepositories: {extra: https://example.org/apt}\n\
    sources: [https://example.org/thing]\nartifacts: [out]\n\
    tasks:\n- one: touch out\n- two: echo\n";

fn all_steps() -> Build {
    Build::of(ALL_STEPS).with_word("git", "[ $1 = clone ] && mkdir thing; true")
}

#[tokio::test]
async fn a_task_that_fails_ends_the_job_and_skips_the_rest() {
    let ran = Build::of("tasks:\n- one: echo\n- two: fail 3\n- three: echo\n")
        .run()
        .await;
    assert_eq!(ran.outcome.status, JobStatus::Failed);
    let task = "two".to_owned();
    assert_eq!(ran.outcome.cause, Cause::TaskFailed { task, exit: 3 });
    assert_eq!(ran.tasks(), "one=success two=failed three=skipped");
    assert_eq!(ran.reason(), "task two failed with exit status 3");
    assert_eq!(ran.state.journal.last().unwrap(), "held failed");
    assert_eq!(ran.told("two"), [TaskStatus::Running, TaskStatus::Failed]);
    assert_eq!(ran.told("three"), [TaskStatus::Skipped]);
}

#[tokio::test]
async fn what_fails_in_a_guest_without_space_on_its_host_is_the_hosts_fault() {
    let ran = Build::of("tasks:\n- one: full; fail 1\n").run().await;
    assert_eq!(ran.outcome.cause, Cause::HostFailed);
    assert_eq!(ran.tasks(), "one=failed");
    assert!(
        ran.reason().contains("no disk space left"),
        "{}",
        ran.reason()
    );
    let ran = Build::of("tasks:\n- one: full\n").run().await;
    assert_eq!(ran.outcome.status, JobStatus::Success);
}

#[tokio::test]
async fn what_fails_in_a_guest_that_reached_the_limit_of_its_disk_is_the_jobs_fault() {
    let ran = Build::of("tasks:\n- one: overfill; fail 1\n").run().await;
    let task = "one".to_owned();
    assert_eq!(ran.outcome.cause, Cause::TaskFailed { task, exit: 1 });
    assert_eq!(
        ran.reason(),
        "task one failed with exit status 1; the guest reached the limit of its disk: write less"
    );
    let mut limited = Build::of("tasks:\n- one: overfill; fail 1\n");
    limited.job.guest.disk_mib = Some(100);
    assert_eq!(
        limited.run().await.reason(),
        "task one failed with exit status 1; the guest reached the limit of its disk, 100 MiB: write less, or ask for more with --disk"
    );
    let ran = Build::of("tasks:\n- one: overfill; full; fail 1\n")
        .run()
        .await;
    assert_eq!(ran.outcome.cause, Cause::HostFailed);
    let ran = Build::of("tasks:\n- one: overfill\n").run().await;
    assert_eq!(ran.outcome.status, JobStatus::Success);
}

#[tokio::test]
async fn a_word_that_no_package_manager_could_be_told_is_refused_before_there_is_a_guest() {
    let long = "x".repeat(5000);
    for (key, what) in [
        (format!("packages: [jq, {long}]\n"), "a package's name"),
        (
            format!("repositories: {{{long}: u}}\n"),
            "a repository's name",
        ),
        (
            format!("repositories: {{r: {long}}}\n"),
            "a repository's source",
        ),
    ] {
        let ran = Build::of(&format!("{key}tasks:\n- one: echo\n"))
            .run()
            .await;
        let step = Step::Prepare;
        assert_eq!(ran.outcome.cause, Cause::StepFailed { step });
        assert_eq!(
            ran.reason(),
            format!("prepare: {what} has 5000 bytes and may have 4096")
        );
        assert!(ran.calls.is_empty());
    }
}

#[tokio::test]
async fn each_step_fails_with_its_own_message() {
    let table = [
        (
            "packages: [jq, no-such-package]\n",
            Step::Packages,
            "packages: the image could not install jq no-such-package (exit 100)",
        ),
        (
            "repositories: {extra: no-such-url}\n",
            Step::Repositories,
            "repositories: the image could not add extra (exit 2)",
        ),
        (
            "sources: [https://me:token@example.invalid/private.git]\n",
            Step::Sources,
            "sources: could not clone https://example.invalid/private.git (exit 128); a private \
          repository needs an SSH key: add one to the manifest's secrets and use the \
          repository's SSH address",
        ),
        (
            "sources: [.tasks::https://example.org/x]\n",
            Step::Sources,
            "sources: ~/.tasks is already there; name another place: directory::url",
        ),
        (
            "secrets: [deploy-key]\n",
            Step::Prepare,
            "prepare: this job was given no secret deploy-key",
        ),
        (
            "artifacts: [out]\n",
            Step::Artifacts,
            "artifacts: out does not exist",
        ),
    ];
    for (manifest, step, reason) in table {
        let ran = Build::of(&format!("{manifest}tasks:\n- build: echo\n"))
            .with_word("git", "exit 128")
            .run()
            .await;
        assert_eq!(ran.outcome.status, JobStatus::Failed);
        assert_eq!(ran.outcome.cause, Cause::StepFailed { step });
        assert_eq!(ran.reason(), reason);
        assert!(
            ran.log().ends_with(&format!(": {reason}\n")),
            "{}",
            ran.log()
        );
        let ended = ran
            .json()
            .into_iter()
            .rev()
            .find(|e| e["event"] == "step-ended");
        let ended = ended.map(|event| event["ok"].clone());
        assert!(ended.is_none_or(|ok| ok == (step == Step::Prepare)));
    }
}

#[tokio::test]
async fn a_guest_that_never_comes_to_be_is_the_hosts_or_the_images_failure() {
    let table = [
        (Start::NoSpace, "start: the host could not start a guest"),
        (
            Start::BadImage,
            "start: the image of this job can't be used on this host",
        ),
        (
            Start::PowersOff,
            "start: the guest was powered off from inside while it started",
        ),
        (
            Start::NeverAnswers,
            "start: the guest never let us in: nothing answered on its SSH port",
        ),
    ];
    for (start, reason) in table {
        let ran = Build::script("echo").on(Dummy::new(start)).run().await;
        assert_eq!(ran.outcome.status, JobStatus::Failed);
        assert_eq!(ran.outcome.cause, Cause::NotStarted);
        assert_eq!(ran.reason(), reason);
        assert_eq!(ran.tasks(), "build=skipped");
        let folder = ran.build.folder.path().to_str().unwrap().to_owned();
        assert!(!ran.all_text().contains(&folder), "the log shows the host");
        assert!(ran.outcome.operator.is_some());
    }
}

#[tokio::test]
async fn the_deadline_counts_from_before_the_start() {
    let ran = Build::script("echo")
        .on(Dummy::new(Start::Hangs))
        .within(Duration::from_millis(50))
        .run()
        .await;
    assert_eq!(ran.outcome.status, JobStatus::Timeout);
    assert_eq!(ran.outcome.cause, Cause::Timeout);
    assert_eq!(ran.tasks(), "build=skipped");
}

#[tokio::test]
async fn a_task_that_hangs_times_out_as_failed_and_says_so_in_its_log() {
    let ran = Build::of("tasks:\n- one: hang\n- two: echo\n")
        .within(Duration::from_secs(3))
        .run()
        .await;
    assert_eq!(ran.outcome.status, JobStatus::Timeout);
    assert_eq!(ran.tasks(), "one=failed two=skipped");
    assert_eq!(ran.reason(), "the job took longer than the 3.0 s it may");
    assert!(
        ran.text("one")
            .ends_with("[kiln] the job took longer than the 3.0 s it may\n")
    );
    assert_eq!(ran.calls.last(), Some(&Call::Stop));
}

#[tokio::test]
async fn a_cancelled_job_is_stopped_and_not_held() {
    let ran = Build::of("tasks:\n- one: hang\n- two: echo\n")
        .cancelled_at("one")
        .run()
        .await;
    assert_eq!(ran.outcome.status, JobStatus::Cancelled);
    assert_eq!(ran.outcome.cause, Cause::Cancelled);
    assert_eq!(ran.tasks(), "one=failed two=skipped");
    assert!(
        !ran.state
            .journal
            .iter()
            .any(|entry| entry.starts_with("held"))
    );
    assert_eq!(ran.calls.last(), Some(&Call::Stop));
}

#[tokio::test]
async fn a_guest_that_vanishes_fails_the_step_that_it_vanished_in() {
    type Fault = fn(&Call) -> bool;
    let gone = "the guest was powered off from inside";
    let table: [(&str, Fault, &str); 8] = [
        ("settings", |c| exec(c, "eval"), "one=skipped two=skipped"),
        (
            "repositories",
            |c| matches!(c, Call::AddRepository(..)),
            "one=skipped two=skipped",
        ),
        (
            "packages",
            |c| matches!(c, Call::Install(_)),
            "one=skipped two=skipped",
        ),
        ("sources", |c| exec(c, "clone"), "one=skipped two=skipped"),
        (
            "task one",
            |c| exec(c, ".tasks/one"),
            "one=failed two=skipped",
        ),
        (
            "task one",
            |c| matches!(c, Call::FreshLogin),
            "one=failed two=skipped",
        ),
        (
            "task two",
            |c| exec(c, ".tasks/two"),
            "one=success two=failed",
        ),
        (
            "artifacts",
            |c| exec(c, "cat --"),
            "one=success two=success",
        ),
    ];
    for (place, fault, tasks) in table {
        let ran = all_steps().vanishing_at(fault).run().await;
        assert_eq!(ran.outcome.status, JobStatus::Failed, "{place}");
        assert_eq!(ran.outcome.cause, Cause::GuestLost, "{place}");
        assert_eq!(ran.reason(), format!("{place}: {gone}"));
        assert_eq!(ran.tasks(), tasks, "{place}");
        assert_eq!(ran.calls.last(), Some(&Call::Stop));
        assert_eq!(ran.kept(), [""; 0], "{place}");
    }
}

fn exec(call: &Call, text: &str) -> bool {
    matches!(call, Call::Exec(command) if command.contains(text))
}

#[tokio::test]
async fn a_script_can_make_its_guest_go_in_several_ways() {
    let table = [
        (
            "vanish",
            "task build: the guest was powered off from inside",
        ),
        ("panic", "task build: the guest's kernel panicked"),
        ("cut", "task build: the connection to the guest was lost"),
    ];
    for (word, reason) in table {
        let ran = Build::script(word).run().await;
        assert_eq!(ran.outcome.cause, Cause::GuestLost);
        assert_eq!(ran.reason(), reason);
        assert!(ran.text("build").ends_with(&format!("[kiln] {reason}\n")));
    }
}

#[tokio::test]
async fn a_reporter_without_room_ends_the_job_as_the_hosts_failure() {
    let ran = Build::script("echo hello; hang")
        .reporter_full_at("build")
        .run()
        .await;
    assert_eq!(ran.outcome.cause, Cause::LogLost);
    assert_eq!(
        ran.reason(),
        "the host could not store the job's log: no space is left on it"
    );
    assert_eq!(ran.tasks(), "build=failed");
    assert_eq!(ran.calls.last(), Some(&Call::Stop));
}

#[tokio::test]
async fn fifty_jobs_at_once_do_not_disturb_each_other_and_leave_nothing() {
    let jobs: Vec<_> = (0..50)
        .map(|number| {
            let script = format!("echo {number} >out; sleep 600 & setsid sleep 600 &");
            let mut build = Build::script(&script);
            build.job.manifest.artifacts = Some(vec!["out".into()]);
            tokio::spawn(async move { build.run().await })
        })
        .collect();
    for (number, job) in jobs.into_iter().enumerate() {
        let ran = job.await.unwrap();
        assert_eq!(ran.outcome.status, JobStatus::Success, "{}", ran.all_text());
        assert_eq!(ran.artifact("out"), format!("{number}\n").into_bytes());
        let mark = format!("KILN_DUMMY={}", ran.build.job.guest.dir.display());
        for entry in std::fs::read_dir("/proc").unwrap() {
            let environ = std::fs::read(entry.unwrap().path().join("environ"));
            let environ = String::from_utf8_lossy(&environ.unwrap_or_default()).into_owned();
            assert!(!environ.split('\0').any(|word| word == mark), "{number}");
        }
    }
}
