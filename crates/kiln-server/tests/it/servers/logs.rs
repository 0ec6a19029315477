//! Who follows a log by one server while its worker is at the other.

use http::Request;
use kiln_core::job::JobStatus;
use kiln_wire::client::empty;

use super::harness::{Between, Two};
use crate::workers::{
    harness::{Answer, MANIFEST},
    live::Reader,
};

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

#[tokio::test]
async fn who_reads_what_the_bucket_has_lost_is_told_so_and_not_to_come_again() {
    let two = Two::on(Between::Nothing).await;
    let mut worker = two.one.worker("one").await;
    let job = two.submit(&two.one, MANIFEST).await;
    let fence = worker.offered().await.fence;
    worker.report(fence, "begun", empty()).await.done();
    let at = worker.append(fence, "0", "").await.stored();
    worker
        .append(fence, &at.to_string(), "one\n")
        .await
        .stored();
    worker.end(fence, JobStatus::Success).await.done();
    std::fs::remove_dir_all(two.bucket.join("logs")).unwrap();
    // As one does who was broken off there: the last byte that it has comes again.
    let request = Request::get(format!("/query/log/{job}/log"))
        .header("range", format!("bytes={}-", at - 1))
        .body(empty())
        .unwrap();
    let answer = Answer::to(&two.other.client(Some(&two.token)), request).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status, 410);
    assert!(
        answer.text().contains(r#""code":"GONE""#),
        "{}",
        answer.text()
    );
}
