//! Who follows a log by one server while its worker is at the other.

use kiln_core::job::JobStatus;
use kiln_wire::client::empty;

use super::harness::{Between, Two};
use crate::workers::{harness::MANIFEST, live::Reader};

/// A log is appended to at one server and followed by the other, to its end.
async fn follows(two: &Two) {
    let mut worker = two.one.worker("one").await;
    let job = two.submit(&two.one, MANIFEST).await;
    let fence = worker.offered().await.fence;
    worker.report(fence, "begun", empty()).await.done();
    let path = format!("/query/log/{job}/log?follow");
    let mut reader = Reader::of(&two.other, &two.token, &path).await;
    reader.until("on worker one\n").await;
    let at = worker.append(fence, "0", "").await.stored();
    worker
        .append(fence, &at.to_string(), "one\n")
        .await
        .stored();
    reader.until("on worker one\none\n").await;
    // It may come by another server, too.
    let client = std::mem::replace(&mut worker.client, two.other.client(Some("kiln_w_one")));
    let place = (at + 4).to_string();
    worker.append(fence, &place, "two\n").await.stored();
    reader.until("one\ntwo\n").await;
    worker.client = client;
    worker.end(fence, JobStatus::Success).await.done();
    assert!(reader.end().await);
    assert!(reader.read.ends_with("one\ntwo\n"), "{}", reader.read);
}

#[tokio::test]
async fn a_log_is_followed_by_another_server_through_redis() {
    follows(&Two::on(Between::Redis).await).await;
}

#[tokio::test]
async fn a_log_is_followed_by_another_server_when_the_bus_drops_everything() {
    follows(&Two::on(Between::Nothing).await).await;
}

#[tokio::test]
async fn bytes_are_shown_early_by_another_server_and_proven_when_they_are_stored() {
    let two = Two::on(Between::Redis).await;
    let mut worker = two.one.worker("one").await;
    let job = two.submit(&two.one, MANIFEST).await;
    let fence = worker.offered().await.fence;
    worker.report(fence, "begun", empty()).await.done();
    let path = format!("/query/log/{job}/log?follow=early");
    let mut reader = Reader::of(&two.other, &two.token, &path).await;
    reader.until("on worker one\n").await;
    let at = worker.append(fence, "0", "").await.stored();
    // Nobody passes on what nobody at another server has asked for, and that comes by a hint.
    let again = async {
        loop {
            worker.early(fence, "", at, "early ").await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = reader.until("early ") => {}
        never = again => match never {},
    }
    let place = at.to_string();
    worker
        .append(fence, &place, "early and late\n")
        .await
        .stored();
    reader.until("early and late\n").await;
    worker.end(fence, JobStatus::Success).await.done();
    assert!(reader.end().await);
    assert_eq!(reader.read.matches("early").count(), 1);
}
