//! Packed logs, in a directory and in an object store.

use std::io;

use kiln_objects::Objects;
use tokio::io::AsyncReadExt;

use crate::place::{FIRST, Place, START, bytes, ends_at, log, read, task};

/// A log that is worth packing: megabytes of lines, the first of which is the server's.
fn lines(count: u64) -> Vec<u8> {
    let lines = (2..=count).map(|line| format!("line {line} of the build\n"));
    let text: String = std::iter::once(format!("{FIRST}\n")).chain(lines).collect();
    text.into_bytes()
}

/// Writes it in pieces, as a worker would.
async fn written(place: &Place, text: &[u8]) -> Objects {
    let objects = place.begun().await;
    let mut at = START;
    for piece in text[at as usize..].chunks(700_000) {
        at = place.append(&objects, at, piece).await.unwrap();
    }
    assert_eq!(at, text.len() as u64);
    objects
}

async fn part(objects: &Objects, from: usize, to: usize) -> Vec<u8> {
    bytes(objects.read(&log(), from as u64, to as u64).await.unwrap()).await
}

async fn reads_as(objects: &Objects, text: &[u8]) {
    assert_eq!(objects.stored(&log()).await.unwrap(), text.len() as u64);
    assert!(read(objects, &log()).await == text);
}

pub async fn a_packed_log_is_read_as_before_and_takes_less_room(place: &Place) {
    let text = lines(100_000);
    let objects = written(place, &text).await;
    let kept = objects.pack(&log()).await.unwrap();
    assert!(kept < text.len() as u64 / 4, "{kept} of {}", text.len());
    for objects in [objects, place.open().await] {
        reads_as(&objects, &text).await;
        let end = text.len();
        for (from, to) in [
            (0, 1),
            (262_140, 262_150),
            (1_000_000, 2_000_000),
            (end - 1, end),
        ] {
            assert!(part(&objects, from, to).await == text[from..to]);
        }
        assert_eq!(part(&objects, end, usize::MAX).await, b"");
        assert_eq!(objects.pack(&log()).await.unwrap(), kept);
    }
}

pub async fn a_line_of_a_packed_log_is_found_without_reading_what_is_before(place: &Place) {
    let text = lines(100_000);
    let objects = written(place, &text).await;
    assert_eq!(objects.seek_line(&log(), 90_000).await.unwrap(), (0, 1));
    objects.pack(&log()).await.unwrap();
    let (at, line) = objects.seek_line(&log(), 90_000).await.unwrap();
    assert!(line <= 90_000 && line > 70_000, "{line}");
    let rest = part(&objects, at as usize, usize::MAX).await;
    assert!(rest.starts_with(format!("line {line} of").as_bytes()));
}

pub async fn who_reads_while_a_log_is_packed_reads_on(place: &Place) {
    let text = lines(100_000);
    let objects = written(place, &text).await;
    let mut reader = objects.read(&log(), 0, u64::MAX).await.unwrap();
    let mut bytes = vec![0; 1000];
    reader.read_exact(&mut bytes).await.unwrap();
    objects.pack(&log()).await.unwrap();
    reader.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes == text);
}

pub async fn many_read_while_two_pack_the_same_log(place: &Place) {
    let text = lines(20_000);
    let objects = written(place, &text).await;
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (objects, text) = (objects.clone(), text.clone());
        readers.spawn(async move {
            for _ in 0..10 {
                reads_as(&objects, &text).await;
            }
        });
    }
    let log = log();
    let (one, other) = tokio::join!(objects.pack(&log), objects.pack(&log));
    assert_eq!(one.unwrap(), other.unwrap());
    readers.join_all().await;
    reads_as(&place.open().await, &text).await;
}

pub async fn nothing_is_added_to_a_packed_log(place: &Place) {
    let text = lines(1000);
    let objects = written(place, &text).await;
    objects.pack(&log()).await.unwrap();
    let end = text.len() as u64;
    for objects in [objects, place.open().await] {
        place.index.end_lease(crate::place::FENCE);
        assert!(place.append(&objects, end, b"more").await.is_err());
        reads_as(&objects, &text).await;
    }
}

pub async fn a_log_that_packing_does_not_make_smaller_stays_as_it_is(place: &Place) {
    let objects = place.begun().await;
    assert_eq!(objects.pack(&log()).await.unwrap(), START);
    place.line(&objects, &log(), "more").await;
    assert_eq!(read(&objects, &log()).await, b"first\nmore\n");
    assert_eq!(objects.pack(&task("none")).await.unwrap(), 0);
    assert_eq!(place.count("logs/1/1234/tasks"), 0);
}

pub async fn what_is_there_is_listed_and_removed(place: &Place) {
    let text = lines(20_000);
    let objects = written(place, &text).await;
    objects
        .begin(place.key(), &task("build"), "x")
        .await
        .unwrap();
    let artifact = |job, index| {
        let objects = objects.clone();
        async move {
            let sha256 = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
            let mut body = &b"x"[..];
            let put = objects.put_artifact(job, index, &mut body, 1, sha256);
            put.await.unwrap();
        }
    };
    let (job, other) = (crate::place::JOB, kiln_core::farm::JobId(77_001));
    for (job, index) in [(job, 0), (job, 1), (other, 0)] {
        artifact(job, index).await;
    }
    assert_eq!(Vec::from_iter(objects.shards().await.unwrap()), [1, 77]);
    let keys = async |shard| {
        let found = objects.list(shard).await.unwrap().into_iter();
        let mut keys: Vec<_> = found.map(|found| found.key).collect();
        keys.retain(|key| key.starts_with("artifacts/"));
        keys.sort();
        keys
    };
    assert_eq!(
        keys(1).await,
        [objects.artifact_key(job, 0), objects.artifact_key(job, 1)]
    );
    assert_eq!(keys(77).await, [objects.artifact_key(other, 0)]);
    let found = objects.list(77).await.unwrap();
    assert_eq!(found[0].size, 1);
    assert!(found[0].modified.elapsed().unwrap().as_secs() < 3600);
    for _ in 0..2 {
        objects.remove(&objects.artifact_key(job, 1)).await.unwrap();
        assert_eq!(keys(1).await, [objects.artifact_key(job, 0)]);
    }
    objects.remove(&objects.artifacts_of(job)).await.unwrap();
    objects.remove(&objects.artifacts_of(job)).await.unwrap();
    assert_eq!(keys(1).await, [""; 0]);
    assert_eq!(keys(77).await.len(), 1);
    reads_as(&objects, &text).await;
    objects.remove(&objects.logs_of(job)).await.unwrap();
    assert_eq!(place.count("logs"), 0);
}

pub async fn whose_all_this_is_is_written_once(place: &Place) {
    let objects = place.open().await;
    assert_eq!(objects.mark("oak").await.unwrap(), "oak");
    assert_eq!(objects.mark("elm").await.unwrap(), "oak");
}

fn file(place: &Place, name: &str) -> std::path::PathBuf {
    place.files.join("logs/1/1234").join(name)
}

#[tokio::test]
async fn in_a_directory_a_packed_log_takes_the_place_of_its_file() {
    let place = Place::directory().await;
    let objects = written(&place, &lines(20_000)).await;
    let kept = objects.pack(&log()).await.unwrap();
    assert_eq!(kept, file(&place, "log.zst").metadata().unwrap().len());
    assert!(!file(&place, "log").exists());
    assert_eq!(place.count("incoming"), 0);
    let more = place
        .append(&objects, lines(20_000).len() as u64, b"more")
        .await;
    assert_eq!(ends_at(more), lines(20_000).len() as u64);
    assert!(objects.lines_after_commit(&log(), "more\n").await.is_err());
}

#[tokio::test]
async fn a_crash_at_any_point_of_packing_leaves_the_log() {
    let place = Place::directory().await;
    let text = lines(20_000);
    drop(written(&place, &text).await);
    // What was written aside, whole or not.
    std::fs::write(place.files.join("incoming/7"), b"half").unwrap();
    reads_as(&place.open().await, &text).await;
    assert_eq!(place.count("incoming"), 0);
    // Put into its place, whether it was on disk or not, and the log is not removed yet.
    for packed in [
        &b""[..],
        b"torn",
        &std::fs::read(file(&place, "log")).unwrap(),
    ] {
        std::fs::write(file(&place, "log.zst"), packed).unwrap();
        reads_as(&place.open().await, &text).await;
    }
    // The next pass ends what this one began.
    place.open().await.pack(&log()).await.unwrap();
    assert!(!file(&place, "log").exists());
    reads_as(&place.open().await, &text).await;
    // And once more, from where both are there.
    std::fs::write(file(&place, "log"), &text).unwrap();
    let objects = place.open().await;
    reads_as(&objects, &text).await;
    objects.pack(&log()).await.unwrap();
    reads_as(&place.open().await, &text).await;
}

#[tokio::test]
async fn a_damaged_packed_log_is_an_error() {
    let place = Place::directory().await;
    let objects = written(&place, &lines(20_000)).await;
    objects.pack(&log()).await.unwrap();
    let whole = std::fs::read(file(&place, "log.zst")).unwrap();
    // The index.
    std::fs::write(file(&place, "log.zst"), &whole[..whole.len() - 1]).unwrap();
    let error = place.open().await.stored(&log()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    // A frame.
    let mut bytes = whole;
    bytes[1000] ^= 1;
    std::fs::write(file(&place, "log.zst"), &bytes).unwrap();
    let objects = place.open().await;
    let mut reader = objects.read(&log(), 0, u64::MAX).await.unwrap();
    let error = reader.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn nothing_outside_is_removed() {
    let place = Place::directory().await;
    let objects = place.open().await;
    for key in [
        "",
        "/",
        "logs/",
        "../",
        "logs/../../x/",
        "/etc/x/y",
        "logs/1",
    ] {
        assert!(objects.remove(key).await.is_err(), "{key}");
    }
}

#[tokio::test]
async fn in_an_object_store_a_packed_log_takes_the_place_of_its_pieces() {
    let place = Place::s3().await;
    let text = lines(20_000);
    let objects = written(&place, &text).await;
    let pieces = objects.list(1).await.unwrap();
    // The database holds the first line.
    assert_eq!(pieces.len(), 1);
    objects.pack(&log()).await.unwrap();
    // Somebody may read it: its objects stay for a while, and go as garbage.
    assert_eq!(objects.list(1).await.unwrap().len(), 2);
    objects.remove(&pieces[0].key).await.unwrap();
    reads_as(&objects, &text).await;
    reads_as(&place.open().await, &text).await;
}

#[tokio::test]
async fn who_reads_pieces_that_are_gone_goes_on_with_the_packed_log() {
    let place = Place::s3().await;
    let text = lines(400_000);
    let objects = written(&place, &text).await;
    let pieces = objects.list(1).await.unwrap();
    assert!(pieces.len() > 8, "more than is fetched ahead");
    let mut reader = objects.read(&log(), 0, u64::MAX).await.unwrap();
    let mut bytes = vec![0; 1000];
    reader.read_exact(&mut bytes).await.unwrap();
    objects.pack(&log()).await.unwrap();
    for piece in pieces {
        objects.remove(&piece.key).await.unwrap();
    }
    reader.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes == text);
}
