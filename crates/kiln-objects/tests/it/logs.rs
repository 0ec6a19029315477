use std::io;

use kiln_objects::{AppendError, LogName, Objects};
use proptest::prelude::*;

use crate::{JOB, log, open, read};

fn file(dir: &tempfile::TempDir) -> std::path::PathBuf {
    dir.path().join("logs/1/1234/log")
}

fn ends_at(refused: Result<u64, AppendError>) -> u64 {
    match refused {
        Err(AppendError::Offset { stored }) => stored,
        other => panic!("it was not refused for its offset: {other:?}"),
    }
}

#[tokio::test]
async fn an_append_is_where_it_says_and_is_read_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let objects = open(&dir).await;
    assert_eq!(objects.append(&log(), 0, b"one ").await.unwrap(), 4);
    assert_eq!(objects.append(&log(), 4, b"two").await.unwrap(), 7);
    assert_eq!(std::fs::read(file(&dir)).unwrap(), b"one two");
    let mut part = objects.read(&log(), 2, 5).await.unwrap();
    let mut bytes = Vec::new();
    tokio::io::copy(&mut part, &mut bytes).await.unwrap();
    assert_eq!(bytes, b"e t");
}

#[tokio::test]
async fn a_repeated_append_is_the_same_append() {
    let dir = tempfile::tempdir().unwrap();
    let objects = open(&dir).await;
    for _ in 0..3 {
        assert_eq!(objects.append(&log(), 0, b"hello").await.unwrap(), 5);
    }
    assert_eq!(objects.append(&log(), 3, b"lo you").await.unwrap(), 9);
    assert_eq!(objects.append(&log(), 0, b"").await.unwrap(), 9);
    assert_eq!(read(&objects, &log()).await, b"hello you");
}

#[tokio::test]
async fn an_append_behind_the_end_or_of_other_bytes_is_told_where_the_log_ends() {
    let dir = tempfile::tempdir().unwrap();
    let objects = open(&dir).await;
    objects.append(&log(), 0, b"hello").await.unwrap();
    assert_eq!(ends_at(objects.append(&log(), 6, b"x").await), 5);
    assert_eq!(ends_at(objects.append(&log(), 0, b"other").await), 5);
    assert_eq!(ends_at(objects.append(&log(), 4, b"p me").await), 5);
    assert_eq!(ends_at(objects.append(&log(), u64::MAX, b"x").await), 5);
    assert_eq!(read(&objects, &log()).await, b"hello");
}

#[tokio::test]
async fn a_line_of_the_servers_is_a_line_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let objects = open(&dir).await;
    objects
        .append_line(&log(), "first\nand only")
        .await
        .unwrap();
    objects.append(&log(), 15, b"no end").await.unwrap();
    objects.append_line(&log(), "last").await.unwrap();
    let text = read(&objects, &log()).await;
    assert_eq!(text, b"first and only\nno end\nlast\n");
}

#[tokio::test]
async fn what_a_crash_left_counts_once_it_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    open(&dir).await.append(&log(), 0, b"hel").await.unwrap();
    // Written, and never acknowledged.
    std::fs::write(file(&dir), b"hello").unwrap();
    let objects = open(&dir).await;
    assert_eq!(objects.stored(&log()).await.unwrap(), 5);
    assert_eq!(objects.append(&log(), 3, b"lo you").await.unwrap(), 9);
    assert_eq!(read(&objects, &log()).await, b"hello you");
}

#[tokio::test]
async fn only_what_is_stored_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let objects = open(&dir).await;
    objects.append(&log(), 0, b"hello").await.unwrap();
    std::fs::write(file(&dir), b"hello, not yet").unwrap();
    assert_eq!(read(&objects, &log()).await, b"hello");
}

#[tokio::test]
async fn who_watches_is_told_of_what_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let objects = open(&dir).await;
    let mut end = objects.watch(&log());
    objects.append(&log(), 0, b"hello").await.unwrap();
    assert!(end.has_changed().unwrap());
    assert_eq!(*end.borrow_and_update(), 5);
    objects.append(&log(), 0, b"hello").await.unwrap();
    assert!(!end.has_changed().unwrap(), "nothing is new");
}

#[tokio::test]
async fn nobody_appends_while_another_holds_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let objects = open(&dir).await;
    let held = objects.lock(&log()).await.unwrap();
    let other = tokio::spawn({
        let objects = objects.clone();
        async move { objects.append(&log(), 0, b"other").await }
    });
    tokio::task::yield_now().await;
    held.append_line("mine").await.unwrap();
    assert_eq!(ends_at(other.await.unwrap()), 5);
}

#[tokio::test]
async fn a_name_never_leads_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let objects = open(&dir).await;
    let long = "x".repeat(256);
    for name in ["", ".", "..", "../../log", "a/b", "a\0b", &long] {
        let log = LogName::Task(JOB, name.to_owned());
        let error = objects.append_line(&log, "x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}");
        assert!(objects.stored(&log).await.is_err());
    }
}

#[tokio::test]
async fn tasks_and_jobs_have_logs_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let objects = open(&dir).await;
    let task = |name: &str| LogName::Task(JOB, name.to_owned());
    objects.append_line(&log(), "job").await.unwrap();
    objects.append_line(&task("log"), "task").await.unwrap();
    assert_eq!(read(&objects, &log()).await, b"job\n");
    assert_eq!(read(&objects, &task("log")).await, b"task\n");
    assert_eq!(objects.stored(&task("other")).await.unwrap(), 0);
}

/// Runs a future to its end, for properties.
fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build();
    runtime.unwrap().block_on(future)
}

/// Sends pieces of a stream as a bad connection would: some twice, some too far on.
async fn send(objects: &Objects, stream: &[u8], pieces: &[(usize, usize)]) {
    for (from, length) in pieces {
        let from = from % (stream.len() + 1);
        let to = (from + length).min(stream.len());
        let before = objects.stored(&log()).await.unwrap();
        let sent = objects.append(&log(), from as u64, &stream[from..to]).await;
        if from as u64 > before {
            assert_eq!(ends_at(sent), before);
        } else {
            assert_eq!(sent.unwrap(), before.max(to as u64));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn overlapping_appends_in_any_order_are_the_stream(
        stream in prop::collection::vec(any::<u8>(), 1..400),
        pieces in prop::collection::vec((any::<usize>(), 0usize..80), 1..24),
        crashes in any::<bool>(),
    ) {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let mut objects = open(&dir).await;
            for some in pieces.chunks(4) {
                if crashes {
                    objects = open(&dir).await;
                }
                send(&objects, &stream, some).await;
            }
            let stored = read(&objects, &log()).await;
            assert_eq!(stored, &stream[..stored.len()]);
            send(&objects, &stream, &[(stored.len(), stream.len())]).await;
            assert_eq!(read(&objects, &log()).await, stream);
        });
    }

    #[test]
    fn a_crash_in_the_middle_of_an_append_loses_nothing_that_was_acknowledged(
        stream in prop::collection::vec(any::<u8>(), 2..200),
        acknowledged in any::<prop::sample::Index>(),
        torn in any::<prop::sample::Index>(),
    ) {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let acknowledged = acknowledged.index(stream.len());
            let torn = acknowledged + torn.index(stream.len() - acknowledged);
            open(&dir).await.append(&log(), 0, &stream[..acknowledged]).await.unwrap();
            if acknowledged > 0 {
                std::fs::write(file(&dir), &stream[..torn]).unwrap();
            }
            let objects = open(&dir).await;
            assert!(objects.stored(&log()).await.unwrap() >= acknowledged as u64);
            let end = objects.append(&log(), acknowledged as u64, &stream[acknowledged..]).await;
            assert_eq!(end.unwrap(), stream.len() as u64);
            assert_eq!(read(&objects, &log()).await, stream);
        });
    }
}
