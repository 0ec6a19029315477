//! Jobs that nothing happens to.

use kiln_core::job::{JobStatus, TaskStatus};
use kiln_wire::message::Mood;
use kiln_worker::farm::{Config, Wish};

use super::harness::{Farm, script, soon, spoken};

#[tokio::test]
async fn a_job_is_told_in_the_order_in_which_it_happened() {
    let farm = Farm::start();
    let manifest = "image: dummy\nartifacts: [out]\ntasks:\n- one: |\n    echo hello\n- two: |\n    echo made > out\n";
    let fence = farm.server.offer(7, manifest);
    let end = soon(farm.server.end(fence)).await;
    assert_eq!(end.status, JobStatus::Success);
    let success = |name: &str| (name.to_owned(), TaskStatus::Success);
    assert_eq!(end.tasks, [success("one"), success("two")]);
    let said = farm.server.said(fence);
    let mut of_note: Vec<&str> = said
        .iter()
        .map(String::as_str)
        .filter(|line| *line != "log job")
        .collect();
    of_note.dedup();
    assert_eq!(
        of_note,
        [
            "started d1",
            "begun",
            "task one running",
            "log one",
            "task one success",
            "task two running",
            "log two",
            "task two success",
            "artifact 0 out",
            "end success",
        ]
    );
    assert_eq!(
        spoken(&farm.server.log(fence, Some("one"))),
        "[farm] first line\nhello\n"
    );
    let log = farm.server.log(fence, None);
    assert!(
        log.starts_with("[farm] first line of the job\n[kiln] job 7"),
        "{log}"
    );
    assert!(log.contains("success after"), "{log}");
    farm.server
        .until(|seen| {
            let kept = seen.artifacts.get(&(fence, "out".to_owned()))?;
            assert_eq!(&kept[..], b"made\n");
            Some(())
        })
        .await;
    farm.drained().await;
}

#[tokio::test]
async fn a_worker_says_who_it_is_and_what_it_has() {
    let farm = Farm::start();
    let hello = soon(farm.server.until(|seen| seen.hellos.first().cloned())).await;
    assert_eq!((hello.slots, hello.state.capacity), (2, 2));
    assert_eq!(hello.labels["ssd"], "yes");
    assert_eq!(hello.state.images[0].name, "dummy");
    assert_eq!(hello.state.mood, Mood::Ready);
    farm.host.has_room(1, "memory");
    let short = |seen: &kiln_wire::testing::Seen| {
        let state = seen.states.last()?;
        (state.capacity == 1).then(|| state.short_of.clone())
    };
    assert_eq!(
        soon(farm.server.until(short)).await.as_deref(),
        Some("memory")
    );
    farm.drained().await;
}

#[tokio::test]
async fn an_offer_that_comes_twice_is_one_job() {
    let mut farm = Farm::start();
    // Whoever connects anew is offered what it does not say that it has; the job
    // is there and done before that.
    let fence = farm.server.offer(1, &script("echo once"));
    soon(farm.server.end(fence)).await;
    farm.server.offer(1, &script("echo twice"));
    farm.server.go_away();
    farm.server.come_back();
    let other = farm.server.offer(2, &script("echo other"));
    soon(farm.server.end(other)).await;
    let begun = |line: &String| line == "begun";
    let said = farm.server.said(fence);
    assert_eq!(said.into_iter().filter(begun).count(), 1);
    farm.wishes(Wish::Stop);
    farm.ended().await.unwrap();
}

#[tokio::test]
async fn a_failed_job_says_why() {
    let farm = Farm::start();
    let fence = farm.server.offer(1, &script("fail 3"));
    let end = soon(farm.server.end(fence)).await;
    assert_eq!(end.status, JobStatus::Failed);
    assert_eq!(
        end.reason.as_deref(),
        Some("task build failed with exit status 3")
    );
    let bad = farm.server.offer(2, "image: [");
    let end = soon(farm.server.end(bad)).await;
    assert!(end.reason.unwrap().contains("the manifest can't be used"));
    farm.drained().await;
}

const WITH_SECRET: &str = "image: dummy\nsecrets:\n- 46f739e5-4538-45dd-a79f-bf173b7a2ed9\n- other\noauth: x\ntasks:\n- build: |\n    echo ran\n";

#[tokio::test]
async fn a_job_whose_secret_is_missing_fails_before_its_first_task() {
    let farm = Farm::start();
    let fence = farm.server.offer(1, WITH_SECRET);
    let end = soon(farm.server.end(fence)).await;
    assert_eq!(end.status, JobStatus::Failed);
    let reason = end.reason.unwrap();
    assert!(
        reason.contains("46f739e5-4538-45dd-a79f-bf173b7a2ed9"),
        "{reason}"
    );
    assert!(!farm.server.said(fence).contains(&"begun".to_owned()));
    assert!(farm.host.calls().is_empty(), "no guest was started for it");
    farm.drained().await;
}

#[tokio::test]
async fn secrets_that_are_not_wanted_are_left_out_with_a_warning() {
    let farm = Farm::start();
    let fence = farm
        .server
        .offer_with(1, WITH_SECRET, |offer| offer.secrets = false);
    assert_eq!(
        soon(farm.server.end(fence)).await.status,
        JobStatus::Success
    );
    let log = farm.server.log(fence, None);
    let line = "[kiln] warning: secrets: the job was submitted without its secrets; left out: 46f739e5-4538-45dd-a79f-bf173b7a2ed9, other\n";
    assert!(log.contains(line), "{log}");
    farm.drained().await;
}

#[tokio::test]
async fn an_artifact_that_the_farm_refuses_fails_the_job_with_its_words() {
    let farm = Farm::start();
    farm.server
        .faults(|faults| faults.refuse_artifacts = Some("the farm keeps 1 KiB".into()));
    let fence = farm.server.offer(
        1,
        "image: dummy\nartifacts: [out]\ntasks:\n- build: |\n    echo x > out\n",
    );
    let end = soon(farm.server.end(fence)).await;
    assert_eq!(end.status, JobStatus::Failed);
    let reason = "artifacts: the farm did not take out: the farm keeps 1 KiB";
    assert_eq!(end.reason.as_deref(), Some(reason));
    farm.drained().await;
}

#[tokio::test]
async fn a_worker_that_is_refused_says_why_and_ends() {
    let refuse = |server: &kiln_wire::testing::Server| {
        server.faults(|faults| faults.refuse_hello = Some("version 1 is too old".into()));
    };
    let mut farm = Farm::with(
        kiln_vm::dummy::Dummy::default(),
        |_: &mut Config| {},
        refuse,
    );
    let error = farm.ended().await.unwrap_err().to_string();
    assert!(error.contains("version 1 is too old"), "{error}");
}

#[tokio::test]
async fn a_jobs_files_are_gone_when_it_has_ended() {
    let mut farm = Farm::start();
    let fence = farm.server.offer(1, &script("echo x"));
    soon(farm.server.end(fence)).await;
    farm.wishes(Wish::Drain);
    farm.ended().await.unwrap();
    let jobs = farm.data.path().join("worker/jobs");
    assert_eq!(std::fs::read_dir(jobs).unwrap().count(), 0);
}
