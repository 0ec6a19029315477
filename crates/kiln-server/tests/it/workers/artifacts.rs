//! Artifacts through a lease.

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use kiln_core::farm::Fence;
use kiln_wire::client::full;

use super::harness::{Answer, Farm, Worker};

/// `printf hello | sha256sum`
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// `printf x | sha256sum`
const X: &str = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";

async fn put(worker: &Worker, fence: Fence, words: &str, body: &'static str) -> Answer {
    let what = format!("artifact?{words}");
    worker.report(fence, &what, full(body)).await
}

fn words(index: u32, path: &str, size: u64) -> String {
    format!("index={index}&path={path}&size={size}&sha256={HELLO}")
}

#[tokio::test]
async fn an_artifact_is_kept_once_however_often_it_is_sent() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    for _ in 0..2 {
        let said = words(0, "out.txt", 5);
        put(&worker, offer.fence, &said, "hello").await.done();
    }
    let kept = farm.store.artifacts(&[offer.job]).await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].path.as_str(), kept[0].size), ("out.txt", 5));
    assert_eq!(kept[0].sha256, HELLO);
    let file = farm
        .dir
        .path()
        .join(format!("objects/artifacts/0/{}/0", offer.job));
    assert_eq!(std::fs::read(file).unwrap(), b"hello");
}

#[tokio::test]
async fn what_the_manifest_does_not_name_is_not_kept() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    let wrong = [
        words(2, "out.txt", 5),
        words(1, "out.txt", 5),
        words(0, "other.txt", 5),
        words(0, "../out.txt", 5),
        words(u32::MAX, "out.txt", 5),
        format!(
            "index=0&path=out.txt&size=5&sha256={}",
            HELLO.to_uppercase()
        ),
        "index=0&path=out.txt&size=5&sha256=ff".to_owned(),
        "index=0&path=out.txt&size=-5".to_owned(),
        "index=0".to_owned(),
    ];
    for said in wrong {
        let answer = put(&worker, offer.fence, &said, "hello").await;
        answer.refused(400, "invalid");
    }
    assert!(farm.store.artifacts(&[offer.job]).await.unwrap().is_empty());
}

#[tokio::test]
async fn one_that_is_not_what_was_said_leaves_nothing() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    for (size, body) in [(5, "hell"), (5, "hello!"), (4, "hello"), (5, "hallo")] {
        let said = words(0, "out.txt", size);
        let answer = put(&worker, offer.fence, &said, body).await;
        answer.refused(400, "invalid");
    }
    let said = words(0, "out.txt", (1 << 20) + 1);
    let answer = put(&worker, offer.fence, &said, "hello").await;
    answer.refused(413, "too-large");
    assert!(farm.store.artifacts(&[offer.job]).await.unwrap().is_empty());
    let incoming = farm.dir.path().join("objects/incoming");
    assert_eq!(std::fs::read_dir(incoming).unwrap().count(), 0);
}

#[tokio::test]
async fn one_that_is_kept_is_not_replaced_by_another() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    let said = words(0, "out.txt", 5);
    put(&worker, offer.fence, &said, "hello").await.done();
    let other = format!("index=0&path=out.txt&size=1&sha256={X}");
    let answer = put(&worker, offer.fence, &other, "x").await;
    answer.refused(400, "invalid");
    let kept = farm.store.artifacts(&[offer.job]).await.unwrap();
    assert_eq!(kept[0].sha256, HELLO);
}

/// Sends one that goes on for longer than all buffers between, whoever listens.
async fn put_much(worker: &Worker, fence: Fence, said: &str) -> Answer {
    let piece = || Ok(Frame::data(Bytes::from(vec![b'x'; 64 << 10])));
    let pieces = futures_util::stream::iter((0..320).map(move |_| piece()));
    let what = format!("artifact?{said}");
    let body = StreamBody::new(pieces).boxed();
    worker.report(fence, &what, body).await
}

#[tokio::test]
async fn who_still_sends_what_is_refused_or_kept_already_hears_it() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    let large = words(0, "out.txt", 20 << 20);
    let answer = put_much(&worker, offer.fence, &large).await;
    assert!(answer.refused(413, "too-large").message.contains("1048576"));
    let said = words(0, "out.txt", 5);
    put(&worker, offer.fence, &said, "hello").await.done();
    put_much(&worker, offer.fence, &said).await.done();
    let lost = Fence(offer.fence.0 + 1);
    let answer = put_much(&worker, lost, &said).await;
    answer.refused(409, "lease-lost");
}
