//! What happened in a job, as its worker tells it.

use kiln_core::job::{JobStatus, TaskStatus};
use kiln_wire::{
    client::{empty, full},
    report::{End, Event, Return},
};
use serde_json::json;

use super::harness::Farm;

#[tokio::test]
async fn a_job_runs_from_its_offer_to_its_end() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.leased().await;
    let fence = offer.fence;
    let started = Event::Started {
        digest: "d1".to_owned(),
        settle_ms: 1500,
    };
    worker.json(fence, "event", &started).await.done();
    let source = Event::Source {
        index: 0,
        commit: "c0ffee".to_owned(),
    };
    worker.json(fence, "event", &source).await.done();
    worker.report(fence, "begun", empty()).await.done();
    for task in ["one", "two"] {
        worker.task(fence, task, TaskStatus::Running).await.done();
        worker.task(fence, task, TaskStatus::Success).await.done();
    }
    worker.end(fence, JobStatus::Success).await.done();
    let job = farm.job(offer.job).await;
    assert_eq!(job.status, JobStatus::Success);
    assert_eq!(job.image_digest.as_deref(), Some("d1"));
    let sources = farm.store.sources(offer.job).await.unwrap();
    assert_eq!(sources[0].commit, "c0ffee");
    let tasks = farm.store.tasks(&[offer.job]).await.unwrap();
    assert!(tasks.iter().all(|task| task.status == TaskStatus::Success));
}

#[tokio::test]
async fn every_report_may_be_sent_again() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.leased().await;
    let fence = offer.fence;
    for _ in 0..2 {
        worker.report(fence, "begun", empty()).await.done();
    }
    for status in [TaskStatus::Running, TaskStatus::Failed] {
        for _ in 0..2 {
            worker.task(fence, "one", status).await.done();
        }
    }
    for _ in 0..2 {
        worker.end(fence, JobStatus::Failed).await.done();
    }
    // Another end is another word: the first one stays.
    worker
        .end(fence, JobStatus::Success)
        .await
        .refused(409, "lease-lost");
    assert_eq!(farm.job(offer.job).await.status, JobStatus::Failed);
}

#[tokio::test]
async fn no_task_runs_before_begun_was_said_and_its_log_stays_empty() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.leased().await;
    let answer = worker.task(offer.fence, "one", TaskStatus::Running).await;
    assert!(answer.refused(400, "invalid").message.contains("begun"));
    assert_eq!(farm.log(offer.job, Some("one")), "");
    let tasks = farm.store.tasks(&[offer.job]).await.unwrap();
    assert_eq!(tasks[0].status, TaskStatus::Pending);
}

#[tokio::test]
async fn a_job_that_has_begun_is_not_given_back() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    let back = Return {
        reason: "no room".to_owned(),
        counts: false,
    };
    worker
        .json(offer.fence, "return", &back)
        .await
        .refused(400, "invalid");
    assert_eq!(farm.job(offer.job).await.status, JobStatus::Running);
}

#[tokio::test]
async fn what_can_not_be_true_is_refused_with_a_sentence() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    let source =
        |index: i64, commit: &str| json!({"event": "source", "index": index, "commit": commit});
    let task = |task: &str, status: &str| json!({"event": "task", "task": task, "status": status});
    let long = "c".repeat(65);
    let events = [
        json!({}),
        json!({"event": "other"}),
        task("three", "running"),
        task("../one", "running"),
        task(&"x".repeat(4096), "running"),
        task("one", "success"),
        task("one", "done"),
        source(0, ""),
        source(0, "main; rm"),
        source(0, &long),
        source(1, "c0ffee"),
        source(-1, "c0ffee"),
        json!({"event": "started", "digest": "", "settle_ms": 1}),
        json!({"event": "started", "digest": "a b", "settle_ms": 1}),
        json!({"event": "started", "digest": "d1", "settle_ms": -1}),
    ];
    for event in events {
        worker
            .json(offer.fence, "event", &event)
            .await
            .refused(400, "invalid");
    }
    for status in [JobStatus::Pending, JobStatus::Queued, JobStatus::Running] {
        worker
            .end(offer.fence, status)
            .await
            .refused(400, "invalid");
    }
    let back = json!({"reason": " ", "counts": true});
    worker
        .json(offer.fence, "return", &back)
        .await
        .refused(400, "invalid");
    assert_eq!(farm.job(offer.job).await.status, JobStatus::Running);
}

#[tokio::test]
async fn bodies_that_are_no_json_or_too_long_are_refused() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    for what in ["event", "end", "return"] {
        for body in [&b""[..], b"{", b"\xff\xfe", b"[[[[", b"null"] {
            let answer = worker.report(offer.fence, what, full(body)).await;
            answer.refused(400, "invalid");
        }
        let long = vec![b' '; (1 << 20) + 1];
        let answer = worker.report(offer.fence, what, full(long)).await;
        answer.refused(413, "too-large");
    }
}

#[tokio::test]
async fn a_reason_that_is_too_long_is_cut_and_the_end_is_taken() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    let end = End {
        status: JobStatus::Failed,
        reason: Some("ä".repeat(5000)),
        tasks: vec![("one".to_owned(), TaskStatus::Failed)],
    };
    worker.json(offer.fence, "end", &end).await.done();
    let reason = farm.job(offer.job).await.reason.unwrap();
    assert_eq!(reason, "ä".repeat(512));
}

#[tokio::test]
async fn a_reason_is_kept_on_one_line_whatever_is_in_it() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.leased().await;
    let end = End {
        status: JobStatus::Failed,
        reason: Some("no\0image\u{1b}[2J\nhere".to_owned()),
        tasks: Vec::new(),
    };
    worker.json(offer.fence, "end", &end).await.done();
    let job = farm.job(offer.job).await;
    assert_eq!(job.reason.as_deref(), Some("no image [2J here"));
}
