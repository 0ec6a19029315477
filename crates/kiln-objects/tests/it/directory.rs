//! What only a directory does.

use kiln_objects::Objects;
use proptest::prelude::*;

use crate::place::{FIRST, Place, START, ends_at, log, read};

fn file(place: &Place) -> std::path::PathBuf {
    place.files.join("logs/1/1234/log")
}

fn with_first(rest: &[u8]) -> Vec<u8> {
    [b"first\n", rest].concat()
}

#[tokio::test]
async fn a_log_is_a_file() {
    let place = Place::directory().await;
    let objects = place.begun().await;
    place.append(&objects, START, b"hello").await.unwrap();
    assert_eq!(std::fs::read(file(&place)).unwrap(), b"first\nhello");
}

#[tokio::test]
async fn what_a_crash_left_counts_once_it_is_looked_at() {
    let place = Place::directory().await;
    let objects = place.begun().await;
    place.append(&objects, START, b"hel").await.unwrap();
    // Written, and never acknowledged.
    std::fs::write(file(&place), with_first(b"hello")).unwrap();
    let objects = place.open().await;
    assert_eq!(objects.stored(&log()).await.unwrap(), 11);
    assert_eq!(place.append(&objects, 9, b"lo you").await.unwrap(), 15);
    assert_eq!(read(&objects, &log()).await, b"first\nhello you");
}

#[tokio::test]
async fn only_what_is_stored_is_read() {
    let place = Place::directory().await;
    let objects = place.begun().await;
    place.append(&objects, START, b"hello").await.unwrap();
    std::fs::write(file(&place), b"first\nhello, not yet").unwrap();
    assert_eq!(read(&objects, &log()).await, b"first\nhello");
}

#[tokio::test]
async fn of_two_that_append_at_once_one_is_first() {
    let place = Place::directory().await;
    let objects = place.begun().await;
    let log = log();
    let (line, append) = tokio::join!(
        place.line(&objects, &log, "mine"),
        place.append(&objects, START, b"other"),
    );
    assert_eq!(line, 11);
    assert_eq!(ends_at(append), 11);
}

#[tokio::test]
async fn uploads_of_a_server_that_died_are_removed() {
    let place = Place::directory().await;
    place.open().await;
    std::fs::write(place.files.join("incoming/7"), b"half").unwrap();
    let objects = place.open().await;
    assert_eq!(place.count("incoming"), 0);
    objects.check().await.unwrap();
    assert_eq!(place.count("incoming"), 0);
}

#[tokio::test]
async fn a_directory_that_cannot_be_is_named() {
    let place = Place::directory().await;
    let file = place.files.join("file");
    std::fs::write(&file, b"").unwrap();
    let error = Objects::open(&file, place.index.clone()).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()), "{error}");
}

/// Runs a future to its end, for properties.
fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build();
    runtime.unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_crash_in_the_middle_of_an_append_loses_nothing_that_was_acknowledged(
        stream in prop::collection::vec(any::<u8>(), 2..200),
        acknowledged in any::<prop::sample::Index>(),
        torn in any::<prop::sample::Index>(),
    ) {
        run(async {
            let place = Place::directory().await;
            let acknowledged = acknowledged.index(stream.len());
            let torn = acknowledged + torn.index(stream.len() - acknowledged);
            let objects = place.begun().await;
            place.append(&objects, START, &stream[..acknowledged]).await.unwrap();
            std::fs::write(file(&place), with_first(&stream[..torn])).unwrap();
            let objects = place.open().await;
            let end = START + acknowledged as u64;
            assert!(objects.stored(&log()).await.unwrap() >= end);
            let end = place.append(&objects, end, &stream[acknowledged..]).await;
            assert_eq!(end.unwrap(), START + stream.len() as u64);
            assert_eq!(read(&objects, &log()).await[FIRST.len() + 1..], stream);
        });
    }
}
