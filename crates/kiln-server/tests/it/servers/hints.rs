//! What happens on one server is seen on the other.

use http::Request;
use kiln_bus::{Heard, Hint, Subscription};
use kiln_core::job::JobStatus;
use kiln_wire::{client::empty, message::FromServer};
use tokio::time::timeout;

use super::harness::{Between, Two, is};
use crate::workers::harness::{Answer, LONG, MANIFEST};

/// A job comes in at one server, runs by the other, and is cancelled at the first.
async fn crosses(two: &Two) {
    let mut worker = two.other.worker("one").await;
    let job = two.submit(&two.one, MANIFEST).await;
    let offer = worker.offered().await;
    assert_eq!(offer.job, job);
    // The offer's token is the one that holds.
    let offered = two.other.client(Some(&offer.token));
    let own = Request::get(format!("/query/log/{job}/log"));
    let own = Answer::to(&offered, own.body(empty()).unwrap()).await;
    assert_eq!(own.unwrap().status, 200);
    worker.report(offer.fence, "begun", empty()).await.done();
    two.cancel(&two.one, job).await;
    let fence = offer.fence;
    assert_eq!(worker.next().await, FromServer::Cancel { fence });
    two.one.until(job, JobStatus::Cancelled).await;
}

#[tokio::test]
async fn jobs_and_cancels_cross_servers_of_one_process() {
    crosses(&Two::on(Between::Memory).await).await;
}

#[tokio::test]
async fn jobs_and_cancels_cross_servers_through_redis() {
    crosses(&Two::on(Between::Redis).await).await;
}

#[tokio::test]
async fn jobs_and_cancels_cross_servers_when_the_bus_drops_everything() {
    crosses(&Two::on(Between::Nothing).await).await;
}

#[tokio::test]
async fn jobs_and_cancels_cross_servers_while_redis_is_away_and_after_it_came_back() {
    let mut two = Two::on(Between::Redis).await;
    crosses(&two).await;
    two.redis.as_mut().unwrap().kill().unwrap();
    is(&two.third, false).await;
    let request = || Request::get("/readyz").body(empty()).unwrap();
    let ready = Answer::to(&two.one.client(None), request()).await.unwrap();
    assert_eq!(ready.status, 200);
    assert_eq!(
        ready.text(),
        "ready\nwarning: the bus does not answer: hints to other servers come a second late\n"
    );
    // The same start of it: another would leave slots of this one to be filled.
    let mut worker = two.one.start("kiln_w_one", 1).await;
    worker.welcomed().await;
    let job = two.submit(&two.other, MANIFEST).await;
    assert_eq!(worker.offered().await.job, job);
    two.redis.as_mut().unwrap().up().unwrap();
    is(&two.third, true).await;
    two.cancel(&two.other, job).await;
    assert!(matches!(worker.next().await, FromServer::Cancel { .. }));
}

/// Waits for all of these, in any order.
async fn heard(said: &mut Subscription, mut wanted: Vec<Hint>) {
    while !wanted.is_empty() {
        match timeout(LONG, said.next()).await {
            Ok(Some(Heard::Hint(hint))) => wanted.retain(|wanted| *wanted != hint),
            Ok(Some(Heard::Missed)) => {}
            Ok(None) | Err(_) => panic!("nobody says {wanted:?}"),
        }
    }
}

#[tokio::test]
async fn what_a_server_commits_it_says_to_the_others() {
    let two = Two::on(Between::Redis).await;
    let mut said = two.third.subscribe();
    let mut worker = two.other.worker("one").await;
    let session = worker.session.clone();
    heard(&mut said, vec![Hint::Greeted(session.clone())]).await;
    let job = two.submit(&two.one, MANIFEST).await;
    heard(
        &mut said,
        vec![Hint::Job(job), Hint::Session(session.clone())],
    )
    .await;
    let offer = worker.offered().await;
    worker.report(offer.fence, "begun", empty()).await.done();
    heard(&mut said, vec![Hint::Job(job)]).await;
    two.cancel(&two.one, job).await;
    heard(&mut said, vec![Hint::Job(job), Hint::Session(session)]).await;
}

#[tokio::test]
async fn a_session_that_says_hello_on_another_server_is_elsewhere_here() {
    let two = Two::on(Between::Redis).await;
    let mut old = two.one.worker("one").await;
    let mut new = two.other.start("kiln_w_one", 1).await;
    new.welcomed().await;
    let frame = old.frame().await;
    assert!(frame.is_close(), "{frame:?}");
    let job = two.submit(&two.one, MANIFEST).await;
    assert_eq!(new.offered().await.job, job);
}

#[tokio::test]
async fn a_session_that_is_elsewhere_is_offered_no_job_twice_though_the_bus_drops_everything() {
    let two = Two::on(Between::Nothing).await;
    let mut old = two.one.worker("one").await;
    let mut new = two.other.start("kiln_w_one", 1).await;
    new.welcomed().await;
    let job = two.submit(&two.one, MANIFEST).await;
    let offer = new.offered().await;
    assert_eq!(offer.job, job);
    // It found out when it was about to offer the job.
    let frame = old.frame().await;
    assert!(frame.is_close(), "{frame:?}");
    // And so the token of the one offer is good.
    let own = Request::get(format!("/query/log/{job}/log"));
    let client = two.one.client(Some(&offer.token));
    let own = Answer::to(&client, own.body(empty()).unwrap()).await;
    assert_eq!(own.unwrap().status, 200);
}
