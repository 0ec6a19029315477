//! Logs that are gathered before they are appended, and shown early meanwhile.

use std::time::Duration;

use kiln_core::{farm::Fence, job::JobStatus};
use kiln_vm::dummy::Dummy;
use kiln_wire::{
    live::{Live, WINDOW},
    message::Gather,
    testing::Seen,
};

use super::harness::{Farm, script, soon, spoken};

/// A server that wants logs gathered for longer than anything here takes.
fn gathering() -> Farm {
    let gather = Gather {
        milliseconds: 3_600_000,
        bytes: 1 << 20,
    };
    let prepare = |server: &kiln_wire::testing::Server| {
        server.faults(|faults| faults.gather = Some(gather));
    };
    Farm::with(Dummy::default(), |_| {}, prepare)
}

/// The bytes of a task's log that came early, if they have come so far.
fn early(seen: &Seen, fence: Fence, task: &str) -> Option<(u64, String)> {
    let pieces = seen.live.iter();
    let mut pieces = pieces.filter(|live: &&Live| live.fence == fence && live.task == task);
    let first = pieces.next()?;
    let mut text = first.bytes.to_vec();
    for piece in pieces {
        assert_eq!(piece.offset, first.offset + text.len() as u64, "a gap");
        text.extend_from_slice(&piece.bytes);
    }
    Some((first.offset, String::from_utf8(text).unwrap()))
}

#[tokio::test]
async fn what_is_gathered_is_shown_early_and_appended_where_it_was_shown() {
    let farm = gathering();
    let go = farm.data.path().join("go");
    let wait = format!(
        "echo shown early\nuntil test -e {}; do sleep 0.05; done",
        go.display()
    );
    let fence = farm.server.offer(1, &script(&wait));
    let shown = |seen: &Seen| {
        let (offset, text) = early(seen, fence, "build")?;
        text.contains("shown early\n").then_some((offset, text))
    };
    let (offset, text) = soon(farm.server.until(shown)).await;
    let log = farm.server.log(fence, Some("build"));
    assert!(!log.contains("shown early\n"), "{log}");
    std::fs::write(go, "").unwrap();
    soon(farm.server.end(fence)).await;
    let log = farm.server.log(fence, Some("build"));
    let at = usize::try_from(offset).unwrap();
    assert_eq!(&log[at..at + text.len()], text);
    farm.drained().await;
}

#[tokio::test]
async fn what_comes_while_an_append_is_on_its_way_is_shown_early_too() {
    let gather = Gather {
        milliseconds: 1,
        bytes: 1 << 20,
    };
    let farm = Farm::with(
        Dummy::default(),
        |_| {},
        |server| {
            server.faults(|faults| faults.gather = Some(gather));
        },
    );
    let dir = farm.data.path();
    let wait = |file: &str| {
        format!(
            "until test -e {}/{file}; do sleep 0.05; done",
            dir.display()
        )
    };
    let words = format!(
        "touch {}/runs\n{}\necho one\n{}\necho two",
        dir.display(),
        wait("one"),
        wait("two")
    );
    let fence = farm.server.offer(1, &script(&words));
    let until = async |word: &str| {
        let came = |seen: &Seen| {
            let lines = seen.live.iter().filter(|live| live.task == "build");
            let text: Vec<u8> = lines.flat_map(|live| live.bytes.to_vec()).collect();
            let text = String::from_utf8_lossy(&text).into_owned();
            text.contains(&format!("\n{word}\n")).then_some(())
        };
        soon(farm.server.until(came)).await;
    };
    let runs = async {
        while !dir.join("runs").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(runs).await;
    farm.server.faults(|faults| faults.no_space_for_logs = true);
    std::fs::write(dir.join("one"), "").unwrap();
    // That is appended again and again now, and what follows is not.
    until("one").await;
    std::fs::write(dir.join("two"), "").unwrap();
    until("two").await;
    farm.server
        .faults(|faults| faults.no_space_for_logs = false);
    soon(farm.server.end(fence)).await;
    assert!(spoken(&farm.server.log(fence, Some("build"))).ends_with("two\n"));
    farm.drained().await;
}

#[tokio::test]
async fn an_event_is_not_held_up_by_what_is_gathered_before_it() {
    let farm = gathering();
    let fence = farm.server.offer(1, &script("echo hello"));
    let end = soon(farm.server.end(fence)).await;
    assert_eq!(end.status, JobStatus::Success);
    assert!(spoken(&farm.server.log(fence, Some("build"))).ends_with("hello\n"));
    farm.drained().await;
}

#[tokio::test]
async fn a_server_that_renews_no_lease_is_left_however_much_it_passes_on() {
    let farm = gathering();
    farm.server.faults(|faults| faults.no_renewals = true);
    let fence = farm
        .server
        .offer(1, &script("while sleep 0.2; do echo hello; done"));
    let left = |seen: &Seen| (seen.hellos.len() > 1).then_some(seen.live.len());
    let passed = soon(farm.server.until(left)).await;
    assert!(passed > 2, "{passed}");
    farm.server.cancel(fence);
    farm.drained().await;
}

#[tokio::test]
async fn a_slow_socket_gets_no_more_than_it_answers_and_holds_nothing_up() {
    let farm = gathering();
    farm.server.faults(|faults| faults.slow_socket = true);
    let fence = farm.server.offer(1, &script("seq 1 100000"));
    let end = soon(farm.server.end(fence)).await;
    assert_eq!(end.status, JobStatus::Success);
    let log = farm.server.log(fence, Some("build"));
    assert!(log.ends_with("\n99999\n100000\n"));
    let sent = farm.server.until(|seen| Some(seen.live.len())).await;
    assert!(sent <= WINDOW, "{sent}");
    farm.drained().await;
}

#[tokio::test]
async fn where_nothing_is_gathered_nothing_is_sent_early() {
    let farm = Farm::start();
    let fence = farm.server.offer(1, &script("seq 1 1000"));
    soon(farm.server.end(fence)).await;
    assert_eq!(farm.server.until(|seen| Some(seen.live.len())).await, 0);
    farm.drained().await;
}
