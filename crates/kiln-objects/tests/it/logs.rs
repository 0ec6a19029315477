use kiln_objects::{AppendError, LogName, Objects};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

use crate::place::{FENCE, FIRST, Place, START, bytes, ends_at, log, read, task};

pub async fn an_append_is_where_it_says_and_is_read_in_parts(place: &Place) {
    let objects = place.begun().await;
    assert_eq!(place.append(&objects, START, b"one ").await.unwrap(), 10);
    assert_eq!(place.append(&objects, 10, b"two").await.unwrap(), 13);
    assert_eq!(read(&objects, &log()).await, b"first\none two");
    for (from, to, part) in [
        (4, 8, &b"t\non"[..]),
        (8, 11, b"e t"),
        (12, 99, b"o"),
        (13, 14, b""),
    ] {
        let reader = objects.read(&log(), from, to).await.unwrap();
        assert_eq!(bytes(reader).await, part, "{from}-{to}");
    }
    let again = place.open().await;
    assert_eq!(again.stored(&log()).await.unwrap(), 13);
    assert_eq!(read(&again, &log()).await, b"first\none two");
}

pub async fn a_repeated_append_is_the_same_append(place: &Place) {
    let objects = place.begun().await;
    for _ in 0..3 {
        assert_eq!(place.append(&objects, START, b"hello").await.unwrap(), 11);
    }
    assert_eq!(
        place.append(&objects, START + 3, b"lo you").await.unwrap(),
        15
    );
    let again = place.open().await;
    assert_eq!(
        place.append(&again, START + 3, b"lo you").await.unwrap(),
        15
    );
    assert_eq!(
        place.append(&again, 0, b"first\nhello you").await.unwrap(),
        15
    );
    assert_eq!(read(&objects, &log()).await, b"first\nhello you");
}

pub async fn an_append_behind_the_end_or_of_other_bytes_is_told_where_the_log_ends(place: &Place) {
    let objects = place.begun().await;
    place.append(&objects, START, b"hello").await.unwrap();
    for (offset, bytes) in [
        (12, &b"x"[..]),
        (u64::MAX, b"x"),
        (START, b"other"),
        (START, b"other words"),
        (10, b"p me"),
        (0, b"FIRST\nhello you"),
    ] {
        assert_eq!(ends_at(place.append(&objects, offset, bytes).await), 11);
    }
    assert_eq!(read(&objects, &log()).await, b"first\nhello");
}

pub async fn no_bytes_ask_where_the_log_ends(place: &Place) {
    let objects = place.begun().await;
    assert_eq!(place.append(&objects, 0, b"").await.unwrap(), START);
    assert_eq!(place.append(&objects, START, b"").await.unwrap(), START);
    assert_eq!(ends_at(place.append(&objects, 7, b"").await), START);
}

pub async fn a_line_of_the_servers_is_a_line_of_its_own(place: &Place) {
    let objects = place.open().await;
    let always = async |line| place.line(&objects, &log(), line).await;
    assert_eq!(always("one\nand\r\0only").await, 14);
    place.append(&objects, 14, b"no end").await.unwrap();
    assert_eq!(always("last").await, 26);
    assert_eq!(always("of all").await, 33);
    place.append(&objects, 33, b"end\n").await.unwrap();
    always("end").await;
    let text = read(&objects, &log()).await;
    assert_eq!(text, b"one and  only\nno end\nlast\nof all\nend\nend\n");
}

pub async fn a_log_is_begun_once_and_only_under_its_lease(place: &Place) {
    let objects = place.open().await;
    let begin = async |line| objects.begin(place.key(), &log(), line).await;
    assert_eq!(begin("fir\nst").await.unwrap(), 7);
    assert_eq!(begin("too late").await.unwrap(), 7);
    assert_eq!(read(&objects, &log()).await, b"fir st\n");
    place.index.end_lease(FENCE);
    let refused = objects.begin(place.key(), &task("build"), "late").await;
    assert!(
        matches!(refused, Err(AppendError::LeaseLost)),
        "{refused:?}"
    );
    assert_eq!(objects.stored(&task("build")).await.unwrap(), 0);
}

pub async fn a_last_line_is_for_a_log_that_has_begun(place: &Place) {
    let objects = place.open().await;
    let last = async || objects.lines_after_commit(&log(), "last\n").await.unwrap();
    last().await;
    assert_eq!(objects.stored(&log()).await.unwrap(), 0);
    objects.begin(place.key(), &log(), FIRST).await.unwrap();
    last().await;
    // Else the transaction writes it.
    let said = if objects.are_indexed() { "" } else { "last\n" };
    let text = String::from_utf8(read(&objects, &log()).await).unwrap();
    assert_eq!(text, format!("first\n{said}"));
}

pub async fn lines_before_a_commit_are_there_with_it(place: &Place) {
    let objects = place.open().await;
    let lines = ["one".to_owned(), "t\nwo".to_owned()];
    let left = objects.lines_before_commit(&log(), &lines).await.unwrap();
    if let Some(text) = left {
        assert_eq!(objects.stored(&log()).await.unwrap(), 0);
        assert_eq!(place.index.add_text(&log(), &text), 9);
    }
    assert_eq!(read(&objects, &log()).await, b"one\nt wo\n");
}

pub async fn a_log_that_has_not_begun_takes_nothing(place: &Place) {
    let objects = place.open().await;
    for offset in [0, 5] {
        let refused = place.append(&objects, offset, b"early").await;
        assert!(matches!(refused, Err(AppendError::NotBegun)), "{refused:?}");
    }
    assert_eq!(objects.stored(&log()).await.unwrap(), 0);
}

pub async fn who_watches_is_told_of_what_is_stored(place: &Place) {
    let objects = place.begun().await;
    let mut end = objects.watch(&log());
    end.mark_unchanged();
    place.append(&objects, START, b"hello").await.unwrap();
    assert!(end.has_changed().unwrap());
    assert_eq!(*end.borrow_and_update(), 11);
    place.append(&objects, START, b"hello").await.unwrap();
    assert!(!end.has_changed().unwrap(), "nothing is new");
    place.append(&objects, 11, b" again").await.unwrap();
    assert_eq!(*end.borrow_and_update(), 17);
}

pub async fn nothing_comes_after_what_the_server_said_when_it_ended_the_lease(place: &Place) {
    let objects = place.begun().await;
    place.append(&objects, START, b"mid").await.unwrap();
    place.index.end_lease(FENCE);
    place.line(&objects, &log(), "over").await;
    // Also where this process believes to know the end.
    for offset in [0, START, START + 3, START + 9] {
        let refused = place.append(&objects, offset, b"late").await;
        assert!(
            matches!(refused, Err(AppendError::LeaseLost)),
            "{refused:?}"
        );
    }
    assert_eq!(read(&objects, &log()).await, b"first\nmid\nover\n");
}

pub async fn a_name_never_leads_elsewhere(place: &Place) {
    let objects = place.open().await;
    let long = "x".repeat(256);
    for name in ["", ".", "..", "../../log", "a/b", "a\0b", &long] {
        let log = task(name);
        let error = objects.begin(place.key(), &log, "x").await;
        assert!(matches!(error, Err(AppendError::Io(_))), "{name}");
        assert!(objects.stored(&log).await.is_err());
        let bytes = bytes::Bytes::from_static(b"x");
        let error = objects.append(place.key(), &log, 0, bytes).await;
        assert!(matches!(error, Err(AppendError::Io(_))), "{name}");
    }
}

pub async fn tasks_and_jobs_have_logs_of_their_own(place: &Place) {
    let objects = place.open().await;
    for (log, line) in [
        (log(), "job"),
        (task("log"), "task"),
        (task("a%2Fb"), "strange"),
    ] {
        let end = objects.begin(place.key(), &log, line).await.unwrap();
        let bytes = bytes::Bytes::from_static(b"more\n");
        objects.append(place.key(), &log, end, bytes).await.unwrap();
    }
    assert_eq!(read(&objects, &log()).await, b"job\nmore\n");
    assert_eq!(read(&objects, &task("log")).await, b"task\nmore\n");
    assert_eq!(read(&objects, &task("a%2Fb")).await, b"strange\nmore\n");
    assert_eq!(objects.stored(&task("other")).await.unwrap(), 0);
}

pub async fn an_append_goes_on_when_nobody_waits_for_it(place: &Place) {
    let objects = place.begun().await;
    let mut end = objects.watch(&log());
    {
        let append = place.append(&objects, START, b"hello");
        let mut append = std::pin::pin!(append);
        // It begins, and whoever asked goes away.
        let begun = futures_util::poll!(append.as_mut());
        assert!(begun.is_pending() || matches!(begun, std::task::Poll::Ready(Ok(11))));
        if place.files.join("incoming").exists() {
            // In a directory it begins when it has the lock: let it come so far.
            append.await.unwrap();
        }
    }
    let ended = end.wait_for(|end| *end == 11);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), ended).await;
    ended.expect("it ends").unwrap();
    assert_eq!(read(&objects, &log()).await, b"first\nhello");
}

/// Bytes that are nowhere the same.
fn stream(length: usize) -> Vec<u8> {
    let words = 0u64..length.div_ceil(8) as u64;
    let mut bytes: Vec<u8> = words
        .flat_map(|word| (word.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes())
        .collect();
    bytes.truncate(length);
    bytes
}

pub async fn any_part_of_a_long_log_is_read(place: &Place) {
    let objects = place.begun().await;
    let stream = stream(3 << 20);
    let mut at = 0;
    // Long pieces, and more short ones than are listed at once.
    for length in [1 << 20, (1 << 20) - 7, 700 << 10]
        .into_iter()
        .chain([11; 90])
    {
        let part = &stream[at..at + length];
        let end = place
            .append(&objects, START + at as u64, part)
            .await
            .unwrap();
        at += length;
        assert_eq!(end, START + at as u64);
    }
    let mut all = b"first\n".to_vec();
    all.extend(&stream[..at]);
    for (from, to) in [
        (0, all.len()),
        (1, all.len() - 1),
        (3 << 18, 5 << 19),
        (all.len() - 400, all.len()),
    ] {
        let reader = objects.read(&log(), from as u64, to as u64).await.unwrap();
        assert!(bytes(reader).await == all[from..to], "{from}-{to}");
    }
}

/// Sends pieces of a stream as a bad connection would: some twice, some too far on.
async fn send(
    place: &Place,
    (objects, log): (&Objects, &LogName),
    stream: &[u8],
    pieces: &[(usize, usize)],
) {
    for (from, length) in pieces {
        let from = from % (stream.len() + 1);
        let to = (from + length).min(stream.len());
        let before = objects.stored(log).await.unwrap();
        let offset = START + from as u64;
        let bytes = bytes::Bytes::copy_from_slice(&stream[from..to]);
        let sent = objects.append(place.key(), log, offset, bytes).await;
        if offset > before {
            assert_eq!(ends_at(sent), before);
        } else {
            assert_eq!(sent.unwrap(), before.max(START + to as u64));
        }
    }
}

pub async fn overlapping_appends_in_any_order_are_the_stream(place: &Place) {
    let case = (
        prop::collection::vec(any::<u8>(), 1..400),
        prop::collection::vec((any::<usize>(), 0usize..80), 1..24),
    );
    let mut runner = TestRunner::default();
    for number in 0..12 {
        let (stream, pieces) = case.new_tree(&mut runner).unwrap().current();
        let log = task(&number.to_string());
        let mut objects = place.open().await;
        objects.begin(place.key(), &log, FIRST).await.unwrap();
        for some in pieces.chunks(4) {
            if number % 2 == 0 {
                objects = place.open().await;
            }
            send(place, (&objects, &log), &stream, some).await;
        }
        let stored = read(&objects, &log).await.split_off(FIRST.len() + 1);
        assert_eq!(stored, &stream[..stored.len()]);
        let rest = [(stored.len(), stream.len())];
        send(place, (&objects, &log), &stream, &rest).await;
        let all = read(&objects, &log).await;
        assert_eq!(all[FIRST.len() + 1..], stream);
    }
}
