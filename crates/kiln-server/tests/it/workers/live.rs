//! Bytes of logs that are shown before they are stored.

use futures_util::SinkExt as _;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use kiln_core::{farm::Fence, job::JobStatus};
use kiln_wire::{client::empty, report::Return};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::harness::{Farm, LONG, MANIFEST};

/// Somebody who follows a job's log.
pub(crate) struct Reader {
    body: Incoming,
    pub(crate) read: String,
}

impl Reader {
    /// Follows it with these words of the query.
    pub(crate) async fn of(farm: &Farm, token: &str, path: &str) -> Self {
        let request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .body(empty())
            .unwrap();
        let client = farm.client(Some(token));
        let answer = client.send(request);
        let answer = timeout(LONG, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        Self {
            body: answer.into_body(),
            read: String::new(),
        }
    }

    /// Reads until it ends so.
    pub(crate) async fn until(&mut self, end: &str) {
        while !self.read.ends_with(end) {
            let more = timeout(LONG, self.body.frame()).await;
            let more = more.unwrap_or_else(|_| panic!("no `{end}` behind {:?}", self.read));
            let more = more.unwrap_or_else(|| panic!("it ends: {:?}", self.read));
            let data = more.unwrap().into_data().unwrap();
            self.read.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    /// Reads to the end; whether that came as it should.
    pub(crate) async fn end(&mut self) -> bool {
        loop {
            match timeout(LONG, self.body.frame()).await.expect("it goes on") {
                None => return true,
                Some(Err(_)) => return false,
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap();
                    self.read.push_str(std::str::from_utf8(&data).unwrap());
                }
            }
        }
    }
}

fn path(job: kiln_core::farm::JobId, how: &str) -> String {
    format!("/query/log/{job}/log?{how}")
}

#[tokio::test]
async fn who_wants_to_is_shown_bytes_before_they_are_stored_and_once() {
    let farm = Farm::new().await;
    let (mut worker, offer) = farm.begun().await;
    let (token, fence) = (farm.person().await, offer.fence);
    let mut early = Reader::of(&farm, &token, &path(offer.job, "follow=early")).await;
    let mut stored = Reader::of(&farm, &token, &path(offer.job, "follow")).await;
    early.until("worker one\n").await;
    stored.until("worker one\n").await;
    let at = worker.append(fence, "0", "").await.stored();
    worker.early(fence, "", at, "one ").await;
    worker.early(fence, "", at + 4, "two ").await;
    early.until("one two ").await;
    let before = stored.read.clone();
    let place = at.to_string();
    worker
        .append(fence, &place, "one two three\n")
        .await
        .stored();
    early.until("one two three\n").await;
    stored.until("one two three\n").await;
    assert!(before.ends_with("worker one\n"), "{before}");
    worker.end(fence, JobStatus::Success).await.done();
    assert!(early.end().await && stored.end().await);
    assert_eq!(early.read, farm.log(offer.job, None));
    assert_eq!(stored.read, early.read);
}

#[tokio::test]
async fn who_was_shown_what_never_came_is_broken_off() {
    let farm = Farm::new().await;
    let (mut worker, offer) = farm.begun().await;
    let token = farm.person().await;
    let mut early = Reader::of(&farm, &token, &path(offer.job, "follow=early")).await;
    early.until("worker one\n").await;
    let at = worker.append(offer.fence, "0", "").await.stored();
    worker.early(offer.fence, "", at, "gone").await;
    early.until("gone").await;
    worker.end(offer.fence, JobStatus::Success).await.done();
    assert!(!early.end().await, "{}", early.read);
}

#[tokio::test]
async fn who_was_shown_what_came_otherwise_is_broken_off_before_anything_follows() {
    let farm = Farm::new().await;
    let (mut worker, offer) = farm.begun().await;
    let token = farm.person().await;
    let mut early = Reader::of(&farm, &token, &path(offer.job, "follow=early")).await;
    early.until("worker one\n").await;
    let at = worker.append(offer.fence, "0", "").await.stored();
    worker.early(offer.fence, "", at, "one").await;
    early.until("one").await;
    let place = at.to_string();
    worker.append(offer.fence, &place, "other\n").await.stored();
    assert!(!early.end().await, "{}", early.read);
    assert!(early.read.ends_with("worker one\none"), "{}", early.read);
}

#[tokio::test]
async fn a_worker_shows_nothing_in_logs_of_jobs_that_it_does_not_have() {
    let farm = Farm::new().await;
    let (mut one, offer) = farm.begun().await;
    let token = farm.person().await;
    let mut early = Reader::of(&farm, &token, &path(offer.job, "follow=early")).await;
    early.until("worker one\n").await;
    let at = one.append(offer.fence, "0", "").await.stored();
    let token = farm.registered("two").await;
    let mut thief = farm.start(&token, 2).await;
    thief.welcomed().await;
    for fence in [offer.fence, Fence(offer.fence.0 + 1), Fence(i64::MIN)] {
        thief.early(fence, "", at, "forged").await;
    }
    one.early(offer.fence, "", at, "true").await;
    early.until("true").await;
    assert!(early.read.ends_with("worker one\ntrue"), "{}", early.read);
}

#[tokio::test]
async fn nothing_is_shown_early_under_a_lease_that_has_ended() {
    let farm = Farm::new().await;
    let (mut worker, offer) = farm.leased().await;
    let token = farm.person().await;
    let fence = offer.fence;
    let at = worker.append(fence, "0", "").await.stored();
    let back = Return {
        reason: "no".to_owned(),
        counts: true,
    };
    worker.json(fence, "return", &back).await.done();
    // The server has looked at the leases since: it offers the next.
    let next = loop {
        use kiln_wire::message::FromServer;
        match worker.next().await {
            FromServer::Offer(offer) => break offer,
            FromServer::Cancel { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    let mut early = Reader::of(&farm, &token, &path(offer.job, "follow=early")).await;
    early.until("attempt 2, on worker one ----\n").await;
    let end = worker.append(next.fence, "0", "").await.stored();
    assert!(end > at);
    worker.early(fence, "", end, "forged").await;
    worker.early(next.fence, "", end, "true").await;
    early.until("true").await;
    assert!(early.read.ends_with("----\ntrue"), "{}", early.read);
}

#[tokio::test]
async fn what_is_no_message_of_live_bytes_ends_the_socket_and_harms_nobody() {
    let farm = Farm::new().await;
    let (mut worker, _) = farm.begun().await;
    let garbage = Message::binary(vec![7_u8; 5]);
    worker.socket.send(garbage).await.unwrap();
    let (reason, _) = worker.refused().await;
    assert!(reason.contains("breaks off"), "{reason}");
    farm.submit(MANIFEST).await;
}
