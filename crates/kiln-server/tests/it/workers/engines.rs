//! A farm on PostgreSQL, with its logs and artifacts in S3.

use http::{Request, header};
use kiln_core::job::{JobStatus, TaskStatus};
use kiln_wire::{
    client::{empty, full},
    message::FromServer,
    report::Return,
};

use super::harness::{Answer, Farm};

/// `printf hello | sha256sum`
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// What somebody with a token gets, in whole or a range of it.
async fn get(farm: &Farm, path: &str, range: Option<&str>) -> Answer {
    let mut request = Request::get(path);
    if let Some(range) = range {
        request = request.header(header::RANGE, range);
    }
    let client = farm.client(Some("kiln_u_somebody"));
    let answer = Answer::to(&client, request.body(empty()).unwrap()).await;
    answer.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_begins_grows_is_followed_and_ends_as_on_one_machine() {
    let farm = Farm::on_engines().await;
    farm.person().await;
    let (worker, offer) = farm.begun().await;
    let (fence, job) = (offer.fence, offer.job);
    let first = format!("[kiln] job {job}, on worker one\n");
    let path = format!("/query/log/{job}/log");
    assert_eq!(get(&farm, &path, None).await.text(), first);
    let start = worker.append(fence, "0", "").await.stored();
    assert_eq!(start, first.len() as u64);
    for _ in 0..2 {
        let place = start.to_string();
        assert_eq!(
            worker.append(fence, &place, "hello\n").await.stored(),
            start + 6
        );
    }
    let beyond = (start + 7).to_string();
    let refused = worker.append(fence, &beyond, "x").await;
    assert_eq!(refused.refused(409, "offset").stored, Some(start + 6));
    worker
        .append(fence, "0&task=one", "x")
        .await
        .refused(400, "invalid");
    worker.task(fence, "one", TaskStatus::Running).await.done();
    let task = worker.append(fence, "0&task=one", "").await.stored();
    let place = format!("{task}&task=one");
    worker.append(fence, &place, "of the task").await.stored();

    let range = format!("bytes={}-{}", start + 1, start + 3);
    let part = get(&farm, &path, Some(&range)).await;
    assert_eq!((part.status.as_u16(), part.text()), (206, "ell"));
    let follow = format!("{path}?follow");
    let followed = async { get(&farm, &follow, None).await };
    let ends = async {
        worker
            .append(fence, &(start + 6).to_string(), "more\n")
            .await
            .stored();
        worker.end(fence, JobStatus::Failed).await.done();
    };
    let (followed, ()) = tokio::join!(followed, ends);
    assert_eq!(followed.text(), format!("{first}hello\nmore\n"));
    let task = get(&farm, &format!("/query/log/{job}/one/log"), None).await;
    assert_eq!(task.text(), "[kiln] task one\nof the task");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_farms_last_word_stays_last_and_the_next_attempt_goes_on() {
    let farm = Farm::on_engines().await;
    farm.person().await;
    let (mut worker, offer) = farm.leased().await;
    let start = worker.append(offer.fence, "0", "").await.stored();
    let place = start.to_string();
    worker.append(offer.fence, &place, "trying").await.stored();
    let back = Return {
        reason: "there was no room".to_owned(),
        counts: true,
    };
    worker.json(offer.fence, "return", &back).await.done();
    let late = worker
        .append(offer.fence, &(start + 6).to_string(), "late")
        .await;
    late.refused(409, "lease-lost");
    while !matches!(worker.next().await, FromServer::Offer(_)) {}
    let log = get(&farm, &format!("/query/log/{}/log", offer.job), None).await;
    let lines: Vec<&str> = log.text().lines().skip(1).collect();
    let reason = "[kiln] this attempt ended: there was no room";
    let again = "[kiln] ---- attempt 2, on worker one ----";
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines[0], "trying");
    assert!(
        lines.contains(&reason) && lines.contains(&again),
        "{lines:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_artifact_comes_in_and_is_served_in_parts() {
    let farm = Farm::on_engines().await;
    farm.person().await;
    let (worker, offer) = farm.begun().await;
    let said = format!("artifact?index=0&path=out.txt&size=5&sha256={HELLO}");
    let wrong = worker.report(offer.fence, &said, full("other")).await;
    wrong.refused(400, "invalid");
    for _ in 0..2 {
        worker
            .report(offer.fence, &said, full("hello"))
            .await
            .done();
    }
    let kept = farm.store.artifacts(&[offer.job]).await.unwrap();
    let path = format!("/artifacts/{}/out.txt", kept[0].id.0);
    assert_eq!(get(&farm, &path, None).await.text(), "hello");
    let part = get(&farm, &path, Some("bytes=1-2")).await;
    assert_eq!((part.status.as_u16(), part.text()), (206, "el"));
}
