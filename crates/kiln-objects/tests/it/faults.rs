//! An object store that refuses, is slow, or goes away.

use std::{sync::Arc, time::Duration};

use kiln_objects::{AppendError, testing::S3};

use crate::{
    place::{Place, START, log, read},
    proxy::{Proxy, Way},
};

/// A place behind a proxy, with a server of its own.
async fn behind_a_proxy() -> (S3, Proxy, Arc<Place>) {
    let server = S3::start().unwrap();
    let proxy = Proxy::before(server.address()).await;
    let endpoint = format!("http://{}", proxy.address);
    let place = Place::in_bucket(&server, |mut config| {
        config.endpoint = Some(endpoint);
        config
    });
    (server, proxy, Arc::new(place))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_answered_with_an_error_is_tried_again_until_it_is_not() {
    let (_server, proxy, place) = behind_a_proxy().await;
    let objects = place.begun().await;
    for status in [500, 503] {
        proxy.go(Way::Answered(status));
        let before = proxy.writes();
        let at = objects.stored(&log()).await.unwrap();
        let append = tokio::spawn({
            let objects = objects.clone();
            let place = Arc::clone(&place);
            async move { place.append(&objects, at, b"hello\n").await }
        });
        while proxy.writes() < before + 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxy.go(Way::Through);
        assert_eq!(append.await.unwrap().unwrap(), at + 6);
    }
    assert_eq!(read(&objects, &log()).await, b"first\nhello\nhello\n");
    assert_eq!(place.count("logs"), 2);
}

#[tokio::test]
async fn what_is_refused_for_good_is_told_at_once_and_stored_later() {
    let (_server, proxy, place) = behind_a_proxy().await;
    let objects = place.begun().await;
    proxy.go(Way::Answered(403));
    let before = proxy.writes();
    let refused = place.append(&objects, START, b"hello").await;
    assert!(matches!(refused, Err(AppendError::Io(_))), "{refused:?}");
    assert_eq!(proxy.writes(), before + 1);
    assert!(objects.check().await.is_err());
    assert_eq!(objects.stored(&log()).await.unwrap(), START);
    proxy.go(Way::Through);
    assert_eq!(place.append(&objects, START, b"hello").await.unwrap(), 11);
    objects.check().await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_lost_is_made_up_for() {
    let (_server, proxy, place) = behind_a_proxy().await;
    let objects = place.begun().await;
    proxy.go(Way::CutAnswer);
    let append = place.append(&objects, START, b"hello");
    let mends = async {
        while proxy.writes() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxy.go(Way::Through);
    };
    let (appended, ()) = tokio::join!(append, mends);
    assert_eq!(appended.unwrap(), 11);
    assert_eq!(read(&objects, &log()).await, b"first\nhello");
    assert_eq!(place.count("logs"), 1, "the same object was put again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_goes_away_and_comes_back_has_every_acknowledged_byte() {
    let server = S3::start().unwrap();
    let place = Place::in_bucket(&server, |config| config);
    let objects = place.begun().await;
    let (mut at, mut expected) = (START, b"first\n".to_vec());
    for round in 0..20 {
        if round % 6 == 3 {
            tokio::task::block_in_place(|| server.kill()).unwrap();
        }
        let line = format!("line {round} of a log that must not be lost\n");
        let appended = place.append(&objects, at, line.as_bytes());
        let comes_back = async {
            if round % 6 == 3 {
                // It is tried meanwhile.
                tokio::time::sleep(Duration::from_millis(300)).await;
                tokio::task::block_in_place(|| server.restart()).unwrap();
            }
        };
        let (appended, ()) = tokio::join!(appended, comes_back);
        at = appended.unwrap();
        expected.extend(line.as_bytes());
        assert_eq!(at, expected.len() as u64);
    }
    assert_eq!(read(&objects, &log()).await, expected);
}

#[tokio::test]
async fn a_store_that_stays_silent_ends_the_append_so_that_it_can_be_sent_again() {
    let (_server, proxy, place) = behind_a_proxy().await;
    let objects = place.begun().await;
    proxy.go(Way::Silence);
    let began = std::time::Instant::now();
    let late = place.append(&objects, START, b"hello").await;
    assert!(matches!(late, Err(AppendError::Io(_))), "{late:?}");
    assert!(
        began.elapsed() < Duration::from_secs(29),
        "its worker waits no longer"
    );
    assert_eq!(objects.stored(&log()).await.unwrap(), START);
    proxy.go(Way::Through);
    assert_eq!(place.append(&objects, START, b"hello").await.unwrap(), 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_goes_on_after_an_error() {
    let (_server, proxy, place) = behind_a_proxy().await;
    let objects = place.begun().await;
    place.append(&objects, START, b"hello").await.unwrap();
    proxy.go(Way::Answered(503));
    let reads = tokio::spawn({
        let objects = objects.clone();
        async move { read(&objects, &log()).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    proxy.go(Way::Through);
    assert_eq!(reads.await.unwrap(), b"first\nhello");
}
