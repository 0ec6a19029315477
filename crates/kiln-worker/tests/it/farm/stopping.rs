//! Workers that are asked to end.

use kiln_core::job::JobStatus;
use kiln_vm::dummy::{Dummy, Start};
use kiln_wire::message::Mood;
use kiln_worker::farm::Wish;

use super::harness::{Farm, script, soon};

#[tokio::test]
async fn a_worker_that_drains_ends_when_its_jobs_have_and_takes_no_more() {
    let mut farm = Farm::start();
    let go = farm.data.path().join("go");
    let waits = format!("until [ -e {} ]; do sleep 0.05; done", go.display());
    let fence = farm.server.offer(1, &script(&waits));
    soon(farm.server.heard(fence, "task build running")).await;
    farm.wishes(Wish::Drain);
    soon(farm.server.until(|seen| {
        let last = seen.states.last()?;
        (last.mood == Mood::Draining && last.capacity == 1).then_some(())
    }))
    .await;
    let late = farm.server.offer(2, &script("echo never"));
    let back = soon(farm.server.returned(late)).await;
    assert!(!back.counts);
    std::fs::write(&go, "").unwrap();
    let server = farm.server.clone();
    farm.ended().await.unwrap();
    assert_eq!(soon(server.end(fence)).await.status, JobStatus::Success);
    let goodbyes = server.until(|seen| Some(seen.goodbyes)).await;
    assert_eq!(goodbyes, 1, "a connection that breaks looks like a failure");
}

#[tokio::test]
async fn one_without_jobs_ends_at_once_with_a_server_or_without() {
    let farm = Farm::with(
        Dummy::default(),
        |_| {},
        kiln_wire::testing::Server::go_away,
    );
    farm.drained().await;
}

#[tokio::test]
async fn a_worker_that_is_stopped_fails_what_has_begun() {
    let mut farm = Farm::start();
    let fence = farm.server.offer(1, &script("echo said\nhang"));
    soon(farm.server.heard(fence, "log build")).await;
    farm.wishes(Wish::Stop);
    let server = farm.server.clone();
    farm.ended().await.unwrap();
    let end = soon(server.end(fence)).await;
    assert_eq!(end.status, JobStatus::Failed);
    let reason = "the worker was stopped while the job ran";
    assert_eq!(end.reason.as_deref(), Some(reason));
}

#[tokio::test]
async fn a_worker_that_is_stopped_gives_back_what_has_not_begun() {
    let mut farm = Farm::on(Dummy::new(Start::Hangs));
    let fence = farm.server.offer(1, &script("echo never"));
    soon(farm.server.heard(fence, "log job")).await;
    farm.wishes(Wish::Stop);
    let server = farm.server.clone();
    farm.ended().await.unwrap();
    let back = soon(server.returned(fence)).await;
    assert!(!back.counts);
    assert!(!server.said(fence).contains(&"begun".to_owned()));
}

#[tokio::test]
async fn a_second_worker_on_one_directory_refuses() {
    let farm = Farm::start();
    let hello = |seen: &kiln_wire::testing::Seen| seen.hellos.first().cloned();
    soon(farm.server.until(hello)).await;
    let settings = super::harness::settings(&farm.server, farm.data.path().join("worker"));
    let (_wish, wished) = tokio::sync::watch::channel(Wish::Run);
    let host = std::sync::Arc::new(farm.host.clone());
    let refused = kiln_worker::farm::run(settings, host, wished).await;
    let error = refused.unwrap_err().to_string();
    assert!(
        error.contains(&format!("process {}", std::process::id())),
        "{error}"
    );
    farm.drained().await;
}
