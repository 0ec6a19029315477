//! What is in logs, and how it comes there.

use http::Request;
use kiln_core::{
    farm::JobId,
    job::{JobStatus, TaskStatus},
};
use kiln_objects::LogName;
use kiln_wire::{
    client::{empty, full},
    message::FromServer,
    report::Return,
};

use super::harness::{Answer, Farm, MANIFEST};

#[tokio::test]
async fn a_jobs_log_has_a_line_before_anybody_sees_the_job_run() {
    let farm = Farm::new().await;
    let (_worker, offer) = farm.leased().await;
    let log = farm.log(offer.job, None);
    assert_eq!(log, format!("[kiln] job {}, on worker one\n", offer.job));
}

#[tokio::test]
async fn what_this_farm_does_not_deliver_is_said_first() {
    let farm = Farm::new().await;
    let manifest = "image: debian/stable\noauth: pages.sr.ht/PAGES:RW\ntasks: [{one: 'true'}]\n\
                    triggers: [{action: webhook, condition: always, url: https://example.org/}]\n";
    let job = farm.submit(manifest).await;
    let mut worker = farm.worker("one").await;
    assert_eq!(worker.offered().await.job, job);
    let log = farm.log(job, None);
    assert!(log.contains("does not run triggers yet"), "{log}");
    assert!(log.contains("gives no OAuth tokens yet"), "{log}");
    assert_eq!(log.lines().count(), 3);
}

#[tokio::test]
async fn a_repeated_append_is_one_append() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    let start = worker.append(offer.fence, "0", "").await.stored();
    for _ in 0..3 {
        let answer = worker
            .append(offer.fence, &start.to_string(), "hello\n")
            .await;
        assert_eq!(answer.stored(), start + 6);
    }
    let log = farm.log(offer.job, None);
    assert!(log.ends_with("worker one\nhello\n"), "{log}");
    assert_eq!(farm.stored(&LogName::Job(offer.job)).await, start + 6);
}

#[tokio::test]
async fn an_append_elsewhere_is_told_where_the_log_ends() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    let end = worker.append(offer.fence, "0", "").await.stored();
    for (offset, bytes) in [
        (end + 1, "x"),
        (u64::MAX, "x"),
        (0, "other words than these"),
    ] {
        let answer = worker.append(offer.fence, &offset.to_string(), bytes).await;
        assert_eq!(answer.refused(409, "offset").stored, Some(end));
    }
}

#[tokio::test]
async fn a_tasks_log_begins_when_it_runs_and_not_before() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    let fence = offer.fence;
    for task in ["one", "three", "..", "a/b", ""] {
        let place = format!("0&task={task}");
        worker
            .append(fence, &place, "x")
            .await
            .refused(400, "invalid");
    }
    let start = worker.task(fence, "one", TaskStatus::Running).await;
    let start = start.stored();
    assert_eq!(farm.log(offer.job, Some("one")), "[kiln] task one\n");
    for answer in [
        worker.task(fence, "one", TaskStatus::Running).await,
        worker.append(fence, "0&task=one", "").await,
    ] {
        assert_eq!(answer.stored(), start);
    }
    let place = format!("{start}&task=one");
    worker.append(fence, &place, "hello\n").await.stored();
    assert_eq!(farm.log(offer.job, Some("one")), "[kiln] task one\nhello\n");
    assert_eq!(farm.log(offer.job, Some("two")), "");
}

#[tokio::test]
async fn an_append_has_a_limit_and_what_is_over_leaves_nothing() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    let start = worker.append(offer.fence, "0", "").await.stored();
    let what = format!("log?offset={start}");
    let most = vec![b'x'; 1 << 20];
    let over = vec![b'x'; (1 << 20) + 1];
    let answer = worker.report(offer.fence, &what, full(over)).await;
    answer.refused(413, "too-large");
    let answer = worker.report(offer.fence, &what, full(most)).await;
    assert_eq!(answer.stored(), start + (1 << 20));
}

#[tokio::test]
async fn an_append_with_wrong_words_is_refused() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    for what in [
        "log",
        "log?offset=",
        "log?offset=-1",
        "log?offset=1e3",
        "log?task=one",
    ] {
        let answer = worker.report(offer.fence, what, full("x")).await;
        answer.refused(400, "invalid");
    }
}

#[tokio::test]
async fn a_job_that_is_given_back_says_why_and_the_next_attempt_has_a_line() {
    let farm = Farm::new().await;
    let (mut worker, offer) = farm.leased().await;
    let start = worker.append(offer.fence, "0", "").await.stored();
    // Not the end of a line: the farm's line is one of its own all the same.
    worker
        .append(offer.fence, &start.to_string(), "trying")
        .await
        .stored();
    let back = Return {
        reason: "there was\nno room".to_owned(),
        counts: true,
    };
    worker.json(offer.fence, "return", &back).await.done();
    worker.json(offer.fence, "return", &back).await.done();
    while !matches!(worker.next().await, FromServer::Offer(_)) {}
    let log = farm.log(offer.job, None);
    let lines: Vec<&str> = log.lines().skip(1).collect();
    let again = "[kiln] ---- attempt 2, on worker one ----";
    assert_eq!(
        lines,
        [
            "trying",
            "[kiln] this attempt ended: there was no room",
            again
        ]
    );
}

#[tokio::test]
async fn a_job_that_is_given_back_too_often_fails_and_its_log_says_so() {
    let farm = Farm::new().await;
    let (mut worker, mut offer) = farm.leased().await;
    let back = Return {
        reason: "no room".to_owned(),
        counts: true,
    };
    for attempt in 1..=2 {
        assert_eq!(offer.attempt, attempt);
        worker.json(offer.fence, "return", &back).await.done();
        offer = loop {
            if let FromServer::Offer(next) = worker.next().await {
                break *next;
            }
        };
    }
    worker.json(offer.fence, "return", &back).await.done();
    let job = farm.until(offer.job, JobStatus::Failed).await;
    let reason = job.reason.unwrap();
    let log = farm.log(offer.job, None);
    let last = format!("[kiln] the job ended as failed: {reason}\n");
    assert!(log.ends_with(&last), "{log}");
}

/// Cancels a job as its owner does.
async fn cancel(farm: &Farm, job: JobId) {
    let query = format!("mutation {{ cancel(jobId: {job}) {{ id status }} }}");
    let words = serde_json::json!({ "query": query }).to_string();
    let request = Request::post("/query").header("content-type", "application/json");
    let client = farm.client(Some(&farm.person().await));
    let answer = Answer::to(&client, request.body(full(words)).unwrap()).await;
    let answer = answer.unwrap();
    assert!(answer.text().contains("CANCELLED"), "{}", answer.text());
}

#[tokio::test]
async fn a_job_that_is_cancelled_says_so_at_the_end_of_each_log_that_somebody_may_read() {
    let farm = Farm::new().await;
    let (mut worker, offer) = farm.begun().await;
    worker
        .task(offer.fence, "one", TaskStatus::Running)
        .await
        .done();
    cancel(&farm, offer.job).await;
    let fence = offer.fence;
    assert_eq!(worker.next().await, FromServer::Cancel { fence });
    let reason = farm.job(offer.job).await.reason.unwrap();
    let last = format!("\n[kiln] the job ended as cancelled: {reason}\n");
    for task in [None, Some("one")] {
        let log = farm.log(offer.job, task);
        assert!(log.ends_with(&last), "{log}");
    }
    assert_eq!(farm.log(offer.job, Some("two")), "");
}

#[tokio::test]
async fn the_log_of_a_job_that_never_ran_stays_empty_and_is_served_as_why() {
    let farm = Farm::new().await;
    let job = farm.submit(MANIFEST).await;
    cancel(&farm, job).await;
    assert_eq!(farm.log(job, None), "");
    let request = Request::get(format!("/query/log/{job}/log")).body(empty());
    let client = farm.client(Some("kiln_u_somebody"));
    let served = Answer::to(&client, request.unwrap()).await.unwrap();
    let reason = farm.job(job).await.reason.unwrap();
    let line = format!("[kiln] the job ended as cancelled: {reason}");
    assert_eq!(served.text().trim_end(), line);
}

#[tokio::test]
async fn nothing_comes_into_a_log_after_the_farm_ended_the_job() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    worker
        .task(offer.fence, "one", TaskStatus::Running)
        .await
        .done();
    farm.store.cancel(offer.job, "enough").await.unwrap();
    for place in ["0", "0&task=one"] {
        let answer = worker.append(offer.fence, place, "late").await;
        answer.refused(409, "lease-lost");
    }
}
