use std::io;

use kiln_objects::{AppendError, LogName, Objects, When};
use tokio::io::AsyncReadExt;

use crate::place::{JOB, Place, log, read};

fn file(place: &Place, name: &str) -> std::path::PathBuf {
    place.files.join("logs/1/1234").join(name)
}

/// Makes a text of [`lines`] the log, of which the first one is the server's.
async fn write(place: &Place, objects: &Objects, text: &[u8]) {
    let first = text.iter().position(|byte| *byte == b'\n').unwrap();
    let line = std::str::from_utf8(&text[..first]).unwrap();
    let at = objects
        .append_line(&log(), line, When::Empty)
        .await
        .unwrap();
    place.append(objects, at, &text[first + 1..]).await.unwrap();
}

/// Some megabytes of lines, the first of which is 1.
fn lines(count: u64) -> Vec<u8> {
    (1..=count)
        .flat_map(|line| format!("line {line} of the build\n").into_bytes())
        .collect()
}

async fn part(objects: &Objects, from: u64, to: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reader = objects.read(&log(), from, to).await.unwrap();
    reader.read_to_end(&mut bytes).await.unwrap();
    bytes
}

async fn reads_as(objects: &Objects, text: &[u8]) {
    assert_eq!(objects.stored(&log()).await.unwrap(), text.len() as u64);
    assert!(read(objects, &log()).await == text);
}

#[tokio::test]
async fn a_packed_log_is_read_as_before_and_takes_less_room() {
    let place = Place::directory().await;
    let objects = place.open().await;
    let text = lines(100_000);
    write(&place, &objects, &text).await;
    let kept = objects.pack(&log()).await.unwrap();
    assert!(kept < text.len() as u64 / 4, "{kept} of {}", text.len());
    assert_eq!(kept, file(&place, "log.zst").metadata().unwrap().len());
    assert!(!file(&place, "log").exists());
    for objects in [objects, place.open().await] {
        reads_as(&objects, &text).await;
        for (from, to) in [
            (0, 1),
            (262_140, 262_150),
            (1_000_000, 2_000_000),
            (text.len() - 1, text.len()),
        ] {
            assert!(part(&objects, from as u64, to as u64).await == text[from..to]);
        }
        assert_eq!(part(&objects, text.len() as u64, u64::MAX).await, b"");
        assert_eq!(objects.pack(&log()).await.unwrap(), kept);
    }
}

#[tokio::test]
async fn a_line_of_a_packed_log_is_found_without_reading_what_is_before() {
    let place = Place::directory().await;
    let objects = place.open().await;
    let text = lines(100_000);
    write(&place, &objects, &text).await;
    assert_eq!(objects.seek_line(&log(), 90_000).await.unwrap(), (0, 1));
    objects.pack(&log()).await.unwrap();
    let (at, line) = objects.seek_line(&log(), 90_000).await.unwrap();
    assert!(line <= 90_000 && line > 80_000, "{line}");
    let rest = part(&objects, at, u64::MAX).await;
    assert!(rest.starts_with(format!("line {line} of").as_bytes()));
}

#[tokio::test]
async fn who_reads_while_a_log_is_packed_reads_on() {
    let place = Place::directory().await;
    let objects = place.open().await;
    let text = lines(50_000);
    write(&place, &objects, &text).await;
    let mut reader = objects.read(&log(), 0, u64::MAX).await.unwrap();
    let mut bytes = vec![0; 1000];
    reader.read_exact(&mut bytes).await.unwrap();
    objects.pack(&log()).await.unwrap();
    reader.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes == text);
}

#[tokio::test]
async fn many_read_while_a_log_is_packed() {
    let place = Place::directory().await;
    let objects = place.open().await;
    let text = lines(20_000);
    write(&place, &objects, &text).await;
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (objects, text) = (objects.clone(), text.clone());
        readers.spawn(async move {
            for _ in 0..20 {
                reads_as(&objects, &text).await;
            }
        });
    }
    objects.pack(&log()).await.unwrap();
    readers.join_all().await;
}

#[tokio::test]
async fn a_crash_at_any_point_of_packing_leaves_the_log() {
    let place = Place::directory().await;
    let text = lines(20_000);
    write(&place, &place.open().await, &text).await;
    // What was written aside, whole or not.
    std::fs::write(place.files.join("incoming/7"), b"half").unwrap();
    let objects = place.open().await;
    reads_as(&objects, &text).await;
    assert!(!place.files.join("incoming/7").exists());
    // Put into its place, whether it was on disk or not, and the log is not removed yet.
    for packed in [
        &b""[..],
        b"torn",
        &std::fs::read(file(&place, "log")).unwrap(),
    ] {
        std::fs::write(file(&place, "log.zst"), packed).unwrap();
        let objects = place.open().await;
        reads_as(&objects, &text).await;
        assert_eq!(
            place
                .append(&objects, text.len() as u64, b"")
                .await
                .unwrap(),
            text.len() as u64
        );
    }
    // The next pass ends what this one began.
    let objects = place.open().await;
    objects.pack(&log()).await.unwrap();
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
async fn nothing_is_added_to_a_packed_log() {
    let place = Place::directory().await;
    let objects = place.open().await;
    let text = lines(1000);
    write(&place, &objects, &text).await;
    objects.pack(&log()).await.unwrap();
    for objects in [objects, place.open().await] {
        let end = text.len() as u64;
        let refused = place.append(&objects, end, b"more").await;
        assert!(matches!(refused, Err(AppendError::Offset { stored }) if stored == end));
        assert!(
            objects
                .append_line(&log(), "more", When::Always)
                .await
                .is_err()
        );
        assert_eq!(place.append(&objects, end, b"").await.unwrap(), end);
        reads_as(&objects, &text).await;
    }
}

#[tokio::test]
async fn a_small_log_and_one_that_is_not_there_stay_as_they_are() {
    let place = Place::directory().await;
    let objects = place.open().await;
    write(&place, &objects, b"hello\n").await;
    assert_eq!(objects.pack(&log()).await.unwrap(), 6);
    assert_eq!(place.append(&objects, 6, b"more").await.unwrap(), 10);
    let other = LogName::Task(JOB, "none".to_owned());
    assert_eq!(objects.pack(&other).await.unwrap(), 0);
    assert_eq!(std::fs::read_dir(file(&place, "")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_damaged_packed_log_is_an_error() {
    let place = Place::directory().await;
    let text = lines(20_000);
    let objects = place.open().await;
    write(&place, &objects, &text).await;
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
