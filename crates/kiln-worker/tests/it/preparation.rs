//! Packages: installed, kept for the next job, found in what was kept.

use std::time::Duration;

use kiln_core::job::JobStatus;
use kiln_vm::{
    dummy::{Call, Dummy, Keep},
    machine::Preparation,
};

use crate::harness::{Build, Ran};

async fn run(machine: Dummy) -> Ran {
    let mut build = Build::of(
        "packages: [jq]\nrepositories: {extra: https://example.org/apt}\nsecrets: [key]\ntasks:\n- build: cat ~/token\n",
    )
    .with_secret(
        "key",
        "uuid",
        kiln_worker::SecretKind::File {
            path: "token".into(),
            mode: 0o600,
            bytes: b"s3cr3t".into(),
        },
    )
    .on(machine);
    build.job.guest.preparation = Some(Preparation {
        owner: "me".into(),
        repositories: vec![("extra".into(), "https://example.org/apt".into())],
        packages: vec!["jq".into()],
        max_age: Duration::from_secs(60),
        fresh: false,
    });
    let ran = build.run().await;
    assert_eq!(ran.outcome.status, JobStatus::Success, "{}", ran.log());
    assert_eq!(ran.text("build").lines().last(), Some("s3cr3t"));
    ran
}

/// What the guests were asked for, up to the first thing of the job's own.
fn before_the_job(ran: &Ran) -> Vec<&'static str> {
    let calls = ran.calls.iter().map(|call| match call {
        Call::Start => "start",
        Call::AddRepository(..) => "repository",
        Call::Install(_) => "install",
        Call::Keep => "keep",
        _ => "job",
    });
    calls.take_while(|call| *call != "job").collect()
}

#[tokio::test]
async fn a_guest_is_kept_before_anything_of_the_job_enters() {
    for keep in [Keep::Not, Keep::As] {
        let ran = run(Dummy::default().keeping(keep)).await;
        assert_eq!(
            before_the_job(&ran),
            ["start", "repository", "install", "keep"]
        );
        let told = ran.log().contains("[kiln] kept for the next job, in ");
        assert_eq!(told, keep == Keep::As, "{}", ran.log());
    }
}

#[tokio::test]
async fn what_was_kept_is_not_installed_again_and_the_log_says_how_old_it_is() {
    let ran = run(Dummy::default().prepared(Duration::from_secs(3 * 3600))).await;
    assert_eq!(before_the_job(&ran), ["start"]);
    let line = "[kiln] packages from a template of 3 h ago\n";
    assert!(ran.log().contains(line), "{}", ran.log());
}

#[tokio::test]
async fn a_guest_that_is_lost_when_it_is_kept_costs_the_job_nothing_but_time() {
    let ran = run(Dummy::default().keeping(Keep::Lost)).await;
    assert_eq!(
        before_the_job(&ran),
        [
            "start",
            "repository",
            "install",
            "keep",
            "start",
            "repository",
            "install"
        ]
    );
    assert!(ran.log().contains("[kiln] warning: the guest was lost"));
}
