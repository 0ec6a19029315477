//! The WebSocket: who is let in, what is offered, what is told.

use futures_util::SinkExt as _;
use kiln_core::job::JobStatus;
use kiln_wire::message::{FromServer, FromWorker, MAX_MESSAGE, Mood};
use tokio_tungstenite::tungstenite::Message;

use super::harness::{Farm, MANIFEST, hello, ready};

#[tokio::test]
async fn a_job_is_offered_with_all_that_its_worker_needs() {
    let farm = Farm::new().await;
    let (_worker, offer) = farm.leased().await;
    let id = offer.job;
    assert_eq!(
        (offer.attempt, offer.owner.as_str()),
        (1, "https://farm.example.org/~ann")
    );
    assert_eq!(offer.url, format!("https://farm.example.org/~ann/job/{id}"));
    assert_eq!((offer.deadline_seconds, offer.secrets), (600, false));
    assert_eq!(offer.artifact_limit, 1 << 20);
    let text = MANIFEST.to_owned();
    assert_eq!(offer.recipe, kiln_wire::message::Recipe::Manifest { text });
    assert!(offer.token.starts_with("kiln_j_"));
    let first = farm.log(id, None);
    assert!(!first.is_empty());
    assert_eq!(offer.log, Some(first.len() as u64));
    let job = farm.job(id).await;
    assert_eq!(
        (job.status, job.worker.as_deref()),
        (JobStatus::Running, Some("one"))
    );
}

#[tokio::test]
async fn a_worker_of_another_version_is_refused_with_both_versions() {
    let farm = Farm::new().await;
    let token = farm.registered("one").await;
    let mut other = hello(1);
    other.protocol = 99;
    let mut worker = farm.connected(&token, &other.session).await;
    worker.say(&FromWorker::Hello(other)).await;
    let (reason, again) = worker.refused().await;
    assert!(
        reason.contains("version 1 ") && reason.contains("version 99"),
        "{reason}"
    );
    assert!(!again);
}

#[tokio::test]
async fn what_is_no_hello_is_refused_with_a_sentence() {
    let farm = Farm::new().await;
    let token = farm.registered("one").await;
    for text in [
        "",
        "{",
        "[]",
        r#"{"type":"renew","leases":[]}"#,
        "\u{1f980}",
    ] {
        let mut worker = farm.connected(&token, &hello(1).session).await;
        worker.say_text(text).await;
        let (reason, again) = worker.refused().await;
        assert!(!reason.is_empty() && !again);
    }
    let mut worker = farm.connected(&token, &hello(1).session).await;
    let bytes = Message::binary(vec![0xff; 8]);
    worker.socket.send(bytes).await.unwrap();
    assert!(worker.refused().await.0.contains("texts"));
}

#[tokio::test]
async fn a_message_that_is_too_long_is_refused_before_all_of_it_came() {
    let farm = Farm::new().await;
    let token = farm.registered("one").await;
    let mut worker = farm.connected(&token, &hello(1).session).await;
    let long = "x".repeat(MAX_MESSAGE + 1);
    // The server does not take all of it.
    assert!(worker.socket.send(Message::text(long)).await.is_err());
    let (reason, again) = worker.refused().await;
    assert!(
        reason.contains("at most 2097152 bytes") && !again,
        "{reason}"
    );
}

#[tokio::test]
async fn a_hello_over_its_limits_is_refused() {
    let farm = Farm::new().await;
    let token = farm.registered("one").await;
    let wrong: [fn(&mut kiln_wire::message::Hello); 6] = [
        |hello| hello.version = "v".repeat(65),
        |hello| hello.slots = u32::MAX,
        |hello| hello.leases = (0..5000).map(kiln_core::farm::Fence).collect(),
        |hello| hello.labels = (0..33).map(|n| (n.to_string(), "x".to_owned())).collect(),
        |hello| hello.state.images = vec![hello.state.images[0].clone(); 1025],
        |hello| hello.state.images[0].name = "../etc".to_owned(),
    ];
    for wrong in wrong {
        let mut hello = hello(1);
        wrong(&mut hello);
        let mut worker = farm.connected(&token, &hello.session).await;
        worker.say(&FromWorker::Hello(hello)).await;
        assert!(!worker.refused().await.0.is_empty());
    }
    assert!(farm.store.sessions().await.unwrap().is_empty());
}

#[tokio::test]
async fn messages_after_the_hello_are_checked_too() {
    let farm = Farm::new().await;
    let token = farm.registered("one").await;
    for text in [
        "{",
        r#"{"type":"other"}"#,
        r#"{"type":"renew","leases":"all"}"#,
    ] {
        let mut worker = farm.start(&token, 1).await;
        worker.welcomed().await;
        worker.say_text(text).await;
        assert!(!worker.refused().await.0.is_empty());
    }
    let mut worker = farm.start(&token, 1).await;
    worker.welcomed().await;
    worker.say(&FromWorker::Hello(hello(1))).await;
    assert!(worker.refused().await.0.contains("already"));
}

#[tokio::test]
async fn two_workers_with_one_token_are_two_sessions_with_a_job_each() {
    let farm = Farm::new().await;
    let mut one = farm.worker("one").await;
    let mut two = farm.start("kiln_w_one", 2).await;
    two.welcomed().await;
    farm.submit(MANIFEST).await;
    farm.submit(MANIFEST).await;
    let (first, second) = (one.offered().await, two.offered().await);
    assert_ne!(first.job, second.job);
    assert_eq!(farm.store.sessions().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_session_of_another_worker_can_not_be_taken_over() {
    let farm = Farm::new().await;
    let mut one = farm.worker("one").await;
    let token = farm.registered("two").await;
    let mut thief = farm.start(&token, 1).await;
    let (reason, again) = thief.refused().await;
    assert!(reason.contains("another worker"), "{reason}");
    assert!(!again);
    let job = farm.submit(MANIFEST).await;
    assert_eq!(one.offered().await.job, job);
}

#[tokio::test]
async fn an_offer_that_was_lost_with_its_socket_is_repeated() {
    let farm = Farm::new().await;
    let (worker, first) = farm.leased().await;
    drop(worker);
    let mut worker = farm.start("kiln_w_one", 1).await;
    assert!(worker.welcomed().await.is_empty());
    let again = worker.offered().await;
    assert_eq!((again.fence, again.job), (first.fence, first.job));
    assert_ne!(again.token, first.token, "the first token is worth nothing");
}

#[tokio::test]
async fn a_session_speaks_on_its_last_socket_alone() {
    let farm = Farm::new().await;
    let mut old = farm.worker("one").await;
    let mut new = farm.start("kiln_w_one", 1).await;
    new.welcomed().await;
    assert!(matches!(old.frame().await, Message::Close(_)));
    let job = farm.submit(MANIFEST).await;
    assert_eq!(new.offered().await.job, job);
}

#[tokio::test]
async fn a_worker_that_comes_back_keeps_its_leases_and_is_told_which_are_lost() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    drop(worker);
    let mut hello = hello(1);
    let other = kiln_core::farm::Fence(offer.fence.0 + 1000);
    hello.leases = vec![offer.fence, other];
    let mut worker = farm.connected("kiln_w_one", &hello.session).await;
    worker.say(&FromWorker::Hello(hello)).await;
    assert_eq!(worker.welcomed().await, [other]);
    // It is not offered again: the next that is told is the answer to this.
    worker
        .say(&FromWorker::Renew {
            leases: vec![offer.fence, other],
        })
        .await;
    assert_eq!(
        worker.next().await,
        FromServer::Renewed { lost: vec![other] }
    );
    worker.end(offer.fence, JobStatus::Success).await.done();
    assert_eq!(farm.job(offer.job).await.status, JobStatus::Success);
}

#[tokio::test]
async fn a_cancel_reaches_the_worker_and_its_lease_is_lost() {
    let farm = Farm::new().await;
    let (mut worker, offer) = farm.begun().await;
    farm.store.cancel(offer.job, "enough").await.unwrap();
    assert_eq!(
        worker.next().await,
        FromServer::Cancel { fence: offer.fence }
    );
    worker
        .say(&FromWorker::Renew {
            leases: vec![offer.fence],
        })
        .await;
    let lost = vec![offer.fence];
    assert_eq!(worker.next().await, FromServer::Renewed { lost });
    worker
        .end(offer.fence, JobStatus::Success)
        .await
        .refused(409, "lease-lost");
    assert_eq!(farm.job(offer.job).await.status, JobStatus::Cancelled);
}

#[tokio::test]
async fn a_worker_that_drains_or_is_unwell_is_given_nothing_until_it_is_ready() {
    let farm = Farm::new().await;
    let mut worker = farm.worker("one").await;
    let reason = "the disk is full\n".to_owned();
    for mood in [Mood::Draining, Mood::Unwell { reason }] {
        let state = kiln_wire::message::State { mood, ..ready() };
        worker.say(&FromWorker::State(state)).await;
        worker.say(&FromWorker::Renew { leases: Vec::new() }).await;
        // Its state was taken before this was answered.
        assert_eq!(
            worker.next().await,
            FromServer::Renewed { lost: Vec::new() }
        );
    }
    let sessions = farm.store.sessions().await.unwrap();
    let unwell = kiln_store::model::Mood::Unwell("the disk is full".to_owned());
    assert_eq!(sessions[0].mood, unwell);
    let job = farm.submit(MANIFEST).await;
    farm.store.assign().await.unwrap();
    assert_eq!(farm.job(job).await.status, JobStatus::Queued);
    worker.say(&FromWorker::State(ready())).await;
    assert_eq!(worker.offered().await.job, job);
}

#[tokio::test]
async fn a_worker_that_drained_and_went_is_not_here_any_more() {
    let farm = Farm::new().await;
    let mut worker = farm.worker("one").await;
    let mood = Mood::Draining;
    worker
        .say(&FromWorker::State(kiln_wire::message::State {
            mood,
            ..ready()
        }))
        .await;
    worker.socket.close(None).await.unwrap();
    while !farm.store.sessions().await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_worker_whose_token_was_taken_back_is_sent_away_at_its_next_renewal() {
    let farm = Farm::new().await;
    let mut worker = farm.worker("one").await;
    farm.store.revoke_worker("one").await.unwrap();
    worker.say(&FromWorker::Renew { leases: Vec::new() }).await;
    let (reason, again) = worker.refused().await;
    assert!(reason.contains("taken back"), "{reason}");
    assert!(!again);
}
