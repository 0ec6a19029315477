//! Who may report what: each stranger to a lease is refused, and changes nothing.

use http::Request;
use kiln_core::{
    farm::{Fence, SessionId},
    job::{JobStatus, TaskStatus},
};
use kiln_wire::{
    client::{ClientError, empty, full},
    message::{CONNECT_PATH, Offer},
    report::{End, Event, Return, SESSION_HEADER},
};
use serde::Serialize;

use super::harness::{Answer, Farm, Worker};

fn json(words: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(words).unwrap()
}

/// Every report there is.
fn reports() -> Vec<(String, Vec<u8>)> {
    let task = Event::Task {
        task: "one".to_owned(),
        status: TaskStatus::Running,
    };
    let source = Event::Source {
        index: 0,
        commit: "c0ffee".to_owned(),
    };
    let started = Event::Started {
        digest: "d1".to_owned(),
        settle_ms: 1,
    };
    let end = End {
        status: JobStatus::Success,
        reason: None,
        tasks: Vec::new(),
    };
    let back = Return {
        reason: "no room".to_owned(),
        counts: true,
    };
    let digest = "0".repeat(64);
    let artifact = format!("artifact?index=0&path=out.txt&size=1&sha256={digest}");
    vec![
        ("begun".to_owned(), Vec::new()),
        ("event".to_owned(), json(&task)),
        ("event".to_owned(), json(&source)),
        ("event".to_owned(), json(&started)),
        ("log?offset=0".to_owned(), b"x".to_vec()),
        ("log?offset=0&task=one".to_owned(), b"x".to_vec()),
        (artifact, b"x".to_vec()),
        ("end".to_owned(), json(&end)),
        ("return".to_owned(), json(&back)),
    ]
}

/// Nothing that this one reports is taken, and none of it changes anything.
async fn refuses_all(worker: &Worker, fence: Fence, status: u16, error: &str) {
    for (what, body) in reports() {
        let answer = worker.report(fence, &what, full(body)).await;
        answer.refused(status, error);
    }
}

async fn unchanged(farm: &Farm, offer: &Offer) {
    let job = farm.job(offer.job).await;
    assert_eq!(job.status, JobStatus::Running);
    let log = farm.log(offer.job, None);
    assert_eq!(log, format!("[kiln] job {}, on worker one\n", offer.job));
    assert_eq!(farm.log(offer.job, Some("one")), "");
    assert_eq!(farm.store.artifacts(&[offer.job]).await.unwrap(), []);
    assert!(farm.store.sources(offer.job).await.unwrap().is_empty());
    let attempts = farm.store.attempts(offer.job).await.unwrap();
    assert!(attempts.iter().all(|attempt| attempt.begun.is_none()));
}

#[tokio::test]
async fn without_a_workers_token_there_is_nothing() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.leased().await;
    let person = farm.person().await;
    let others = [
        None,
        Some("kiln_w_nobody"),
        Some(&*person),
        Some(&*offer.token),
        Some(""),
    ];
    for token in others {
        let client = farm.client(token);
        for (what, body) in reports() {
            let put = what.starts_with("log") || what.starts_with("artifact");
            let request = Request::builder()
                .method(if put { "PUT" } else { "POST" })
                .uri(format!("/worker/lease/{}/{what}", offer.fence))
                .header(SESSION_HEADER, worker.session.as_str());
            let answer = Answer::to(&client, request.body(full(body)).unwrap()).await;
            answer.unwrap().refused(401, "unauthorized");
        }
        let socket = client.websocket(CONNECT_PATH).await;
        match socket.err().unwrap() {
            ClientError::Wrong(text) => assert!(text.contains("401"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    unchanged(&farm, &offer).await;
}

#[tokio::test]
async fn a_token_that_was_taken_back_is_none() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.leased().await;
    farm.store.revoke_worker("one").await.unwrap();
    refuses_all(&worker, offer.fence, 401, "unauthorized").await;
    unchanged(&farm, &offer).await;
}

#[tokio::test]
async fn nor_is_it_for_long_one_of_who_has_just_reported() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.leased().await;
    // It changes nothing, however often it is said.
    let asks = || worker.append(offer.fence, "0", "");
    asks().await.done();
    farm.store.revoke_worker("one").await.unwrap();
    let refused = async {
        while asks().await.status.is_success() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let soon = std::time::Duration::from_secs(20);
    tokio::time::timeout(soon, refused).await.unwrap();
    refuses_all(&worker, offer.fence, 401, "unauthorized").await;
    unchanged(&farm, &offer).await;
}

#[tokio::test]
async fn another_workers_lease_is_none_even_with_that_workers_session() {
    let farm = Farm::new().await;
    let (one, offer) = farm.leased().await;
    let token = farm.registered("two").await;
    let mut two = farm.start(&token, 2).await;
    two.welcomed().await;
    refuses_all(&two, offer.fence, 409, "lease-lost").await;
    two.session = one.session.clone();
    refuses_all(&two, offer.fence, 409, "lease-lost").await;
    unchanged(&farm, &offer).await;
}

#[tokio::test]
async fn another_start_of_the_same_worker_has_other_leases() {
    let farm = Farm::new().await;
    let (_one, offer) = farm.leased().await;
    let mut other = farm.start("kiln_w_one", 2).await;
    other.welcomed().await;
    refuses_all(&other, offer.fence, 409, "lease-lost").await;
    other.session = SessionId::new([9; 16]);
    refuses_all(&other, offer.fence, 409, "lease-lost").await;
    unchanged(&farm, &offer).await;
}

#[tokio::test]
async fn a_lease_that_never_was_is_none() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.leased().await;
    for fence in [0, -1, offer.fence.0 + 1, i64::MAX] {
        refuses_all(&worker, Fence(fence), 409, "lease-lost").await;
    }
    unchanged(&farm, &offer).await;
}

#[tokio::test]
async fn an_old_fence_is_refused_when_the_job_has_another() {
    let farm = Farm::new().await;
    let (mut worker, old) = farm.leased().await;
    let back = Return {
        reason: "no room".to_owned(),
        counts: true,
    };
    worker.json(old.fence, "return", &back).await.done();
    let new = loop {
        // The old one may be told to be gone first.
        if let kiln_wire::message::FromServer::Offer(offer) = worker.next().await {
            break offer;
        }
    };
    assert!(new.fence > old.fence);
    assert_eq!((new.job, new.attempt), (old.job, 2));
    for (what, body) in reports() {
        if what != "return" {
            let answer = worker.report(old.fence, &what, full(body)).await;
            answer.refused(409, "lease-lost");
        }
    }
    assert_eq!(farm.job(new.job).await.status, JobStatus::Running);
    worker.report(new.fence, "begun", empty()).await.done();
}

#[tokio::test]
async fn a_lease_that_has_ended_is_none() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    worker.end(offer.fence, JobStatus::Failed).await.done();
    let log = farm.log(offer.job, None);
    for (what, body) in reports() {
        let answer = worker.report(offer.fence, &what, full(body)).await;
        answer.refused(409, "lease-lost");
    }
    assert_eq!(farm.log(offer.job, None), log);
    assert_eq!(farm.job(offer.job).await.status, JobStatus::Failed);
}

#[tokio::test]
async fn a_report_without_a_session_or_a_number_is_refused() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.leased().await;
    let fence = offer.fence.to_string();
    let session = worker.session.as_str();
    let long = "0".repeat(33);
    let wrong = [
        (&*fence, ""),
        (&fence, "0"),
        (&fence, &long),
        (&fence, "ABCDEF0123456789ABCDEF0123456789"),
        ("one", session),
        ("99999999999999999999", session),
        ("%ff", session),
    ];
    for (fence, session) in wrong {
        let request = Request::post(format!("/worker/lease/{fence}/begun"));
        let request = request.header(SESSION_HEADER, session).body(empty());
        let answer = Answer::to(&worker.client, request.unwrap()).await.unwrap();
        answer.refused(400, "invalid");
    }
    unchanged(&farm, &offer).await;
}
