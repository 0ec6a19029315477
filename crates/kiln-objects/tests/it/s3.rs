//! What only an object store does.

use std::sync::Arc;

use kiln_objects::{AppendError, Config, Held, Index as _, ReachError, S3Config, testing::S3};

use crate::place::{FENCE, Place, START, ends_at, log, read, task};

#[tokio::test]
async fn an_append_is_an_object_whose_key_says_whose_it_is() {
    let place = Place::s3().await;
    let objects = place.begun().await;
    place.append(&objects, START, b"hello").await.unwrap();
    let pieces = place.index.pieces(&log(), 0, 9).await.unwrap();
    assert_eq!(pieces.len(), 2, "the server's own line is no object");
    let Held::Object { key, .. } = &pieces[1].held else {
        panic!("{pieces:?}");
    };
    assert!(
        key.starts_with("logs/1/1234/log/00000000000000000006-"),
        "{key}"
    );
    assert_eq!(std::fs::read(place.files.join(key)).unwrap(), b"hello");
}

#[tokio::test]
async fn the_servers_own_lines_need_no_object_store() {
    let server = S3::start().unwrap();
    let place = Place::in_bucket(&server, |config| config);
    let objects = place.open().await;
    server.kill().unwrap();
    let end = objects.begin(place.key(), &log(), "line").await;
    assert_eq!(end.unwrap(), 5);
    assert_eq!(read(&objects, &log()).await, b"line\n");
}

#[tokio::test]
async fn of_two_servers_that_append_at_once_one_wins_and_the_others_object_goes() {
    let place = Place::s3().await;
    let (one, two) = (place.begun().await, place.open().await);
    // Both know where the log ends.
    two.stored(&log()).await.unwrap();
    let mut at = START;
    for round in 0..10 {
        let (first, second) = (format!("first {round}\n"), format!("second {round}\n"));
        let (first, second) = tokio::join!(
            place.append(&one, at, first.as_bytes()),
            place.append(&two, at, second.as_bytes()),
        );
        let (won, lost) = match first {
            Ok(end) => (end, second),
            Err(_) => (second.unwrap(), first),
        };
        assert_eq!(ends_at(lost), won);
        at = won;
    }
    let text = String::from_utf8(read(&one, &log()).await).unwrap();
    assert_eq!(text.lines().count(), 11);
    assert_eq!(place.count("logs"), 10);
}

#[tokio::test]
async fn two_servers_that_take_the_same_append_have_it_once() {
    let place = Place::s3().await;
    let (one, two) = (place.begun().await, place.open().await);
    two.stored(&log()).await.unwrap();
    place.append(&one, START, b"hello\n").await.unwrap();
    // What this one knows is old: its commit finds that they are there.
    assert_eq!(place.append(&two, START, b"hello\n").await.unwrap(), 12);
    assert_eq!(place.append(&two, START, b"hello\n").await.unwrap(), 12);
    assert_eq!(read(&two, &log()).await, b"first\nhello\n");
    assert_eq!(place.count("logs"), 1);
}

#[tokio::test]
async fn a_line_that_comes_in_between_takes_the_place_of_no_byte() {
    let place = Place::s3().await;
    let objects = place.begun().await;
    // Another server ends an attempt, and this one does not know yet.
    let end = place.index.add_text(&log(), "over\n");
    let refused = place.append(&objects, START, b"hello\n").await;
    assert_eq!(ends_at(refused), end, "nothing of it is there");
    assert_eq!(place.count("logs"), 0);
    // Also where it knows, and where as many bytes are there, but others.
    let refused = place.append(&objects, START, b"hello").await;
    assert_eq!(ends_at(refused), end);
    place.append(&objects, end, b"hello\n").await.unwrap();
    assert_eq!(read(&objects, &log()).await, b"first\nover\nhello\n");
}

#[tokio::test]
async fn an_append_whose_lease_ended_meanwhile_leaves_no_object() {
    let place = Place::s3().await;
    let objects = place.begun().await;
    place.append(&objects, START, b"one").await.unwrap();
    place.index.end_lease(FENCE);
    let refused = place.append(&objects, START + 3, b"two").await;
    assert!(
        matches!(refused, Err(AppendError::LeaseLost)),
        "{refused:?}"
    );
    assert_eq!(place.count("logs"), 1);
}

#[tokio::test]
async fn a_log_with_a_hole_is_an_error_and_never_other_bytes() {
    let place = Place::s3().await;
    let objects = place.begun().await;
    place.append(&objects, START, b"hello").await.unwrap();
    std::fs::remove_dir_all(place.files.join("logs")).unwrap();
    let mut reader = objects.read(&log(), 0, u64::MAX).await.unwrap();
    let mut bytes = Vec::new();
    let failed = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut bytes).await;
    assert_eq!(failed.unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert!(b"first\n".starts_with(&bytes), "{bytes:?}");
}

/// Tries to connect; what is said when that fails.
async fn refused(place: &Place, change: impl FnOnce(&mut S3Config)) -> String {
    let mut config = place.s3_config().clone();
    change(&mut config);
    let error = Config::S3(config).reach().await.unwrap_err();
    let said = error.to_string();
    assert!(
        !said.contains("a-secret-of-the-tests") && !said.contains('<'),
        "{said}"
    );
    said
}

#[tokio::test]
async fn what_is_wrong_with_an_object_store_is_told_at_the_start() {
    let place = Place::s3().await;
    let said = refused(&place, |config| config.bucket = "elsewhere".to_owned()).await;
    assert!(
        said.contains("`elsewhere`") && said.contains("is not there"),
        "{said}"
    );
    let said = refused(&place, |config| config.secret_key = "wrong".to_owned()).await;
    assert!(said.contains("refuses the key kiln-tests"), "{said}");
    let said = refused(&place, |config| config.access_key = "nobody".to_owned()).await;
    assert!(said.contains("refuses the key nobody"), "{said}");
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nowhere.local_addr().unwrap();
    drop(nowhere);
    let said = refused(&place, |config| {
        config.endpoint = Some(format!("http://{address}"));
    })
    .await;
    assert!(
        said.contains("can't be used") && said.contains("refused"),
        "{said}"
    );
    let mut away = place.s3_config().clone();
    away.endpoint = Some(format!("http://{address}"));
    let away = Config::S3(away).reach().await;
    assert!(matches!(away, Err(ReachError::Away(_))), "{away:?}");
    let said = refused(&place, |config| config.prefix = "a//b".to_owned()).await;
    assert!(said.contains("`a//b` is no prefix"), "{said}");
}

#[tokio::test]
async fn whether_one_can_write_is_tried_once_a_minute_and_looked_for_between() {
    let place = Place::s3().await;
    let objects = place.open().await;
    let ready = place.files.join("ready");
    objects.check().await.unwrap();
    std::fs::write(&ready, "as it was\n").unwrap();
    objects.check().await.unwrap();
    assert_eq!(std::fs::read_to_string(&ready).unwrap(), "as it was\n");
    std::fs::remove_file(&ready).unwrap();
    objects.check().await.unwrap_err();
    objects.check().await.unwrap();
    assert!(ready.exists(), "what was not found is written again");
}

#[tokio::test]
async fn a_farm_may_have_the_whole_bucket() {
    let mut place = Place::s3().await;
    let config = S3Config {
        prefix: String::new(),
        ..place.s3_config().clone()
    };
    place.files.pop();
    place.config = Config::S3(config);
    let objects = place.begun().await;
    place.append(&objects, START, b"hello").await.unwrap();
    assert_eq!(read(&objects, &log()).await, b"first\nhello");
    objects.check().await.unwrap();
    assert!(place.files.join("ready").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_logs_grow_at_once() {
    let place = Arc::new(Place::s3().await);
    let objects = place.open().await;
    let mut all = tokio::task::JoinSet::new();
    for number in 0..20 {
        let (place, objects) = (Arc::clone(&place), objects.clone());
        all.spawn(async move {
            let log = task(&number.to_string());
            let mut at = objects.begin(place.key(), &log, "first").await.unwrap();
            for round in 0..5 {
                let bytes = bytes::Bytes::from(format!("{number} {round}\n"));
                at = objects.append(place.key(), &log, at, bytes).await.unwrap();
            }
            let text = String::from_utf8(read(&objects, &log).await).unwrap();
            let lines: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
            let expected: Vec<String> = (0..5).map(|round| format!("{number} {round}")).collect();
            assert_eq!(lines, expected);
        });
    }
    all.join_all().await;
}
