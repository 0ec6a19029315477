use std::{
    fs,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{Dummy, Start};
use crate::machine::{Exec, ExitCode, Gone, Guest, GuestError, Machine, Stderr, Stdin};

async fn guest(dummy: &Dummy) -> (TempDir, Box<dyn Guest>) {
    let dir = tempfile::tempdir().unwrap();
    let spec = Dummy::spec(dir.path().to_owned());
    let guest = dummy.start(&spec).await.unwrap();
    (dir, guest)
}

async fn output(guest: &dyn Guest, command: &str) -> (ExitCode, String) {
    let mut output = Vec::new();
    let code = guest.exec(Exec::new(command), &mut output).await.unwrap();
    (code, String::from_utf8(output).unwrap())
}

/// Whether a process carries the mark of a guest in this directory.
fn something_lives(dir: &TempDir) -> bool {
    let mark = format!("KILN_DUMMY={}", dir.path().display());
    fs::read_dir("/proc").unwrap().any(|entry| {
        let environ = fs::read(entry.unwrap().path().join("environ")).unwrap_or_default();
        environ
            .split(|byte| *byte == 0)
            .any(|word| word == mark.as_bytes())
    })
}

/// Waits for what happens soon but not at once.
#[track_caller]
fn assert_nothing_lives_soon(dir: &TempDir) {
    let start = Instant::now();
    while something_lives(dir) {
        assert!(start.elapsed() < Duration::from_secs(20), "something lives");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_command_has_its_input_output_home_and_exit_status() {
    let (_dir, guest) = guest(&Dummy::default()).await;
    let home = guest.login().home.clone();
    let script = "pwd; echo $HOME; cat; echo err >&2; exit 7";
    assert_eq!(
        output(guest.as_ref(), script).await,
        (ExitCode(7), format!("{home}\n{home}\nerr\n"))
    );
    let mut reader = &b"from a reader"[..];
    let exec = Exec {
        stdin: Stdin::Reader(&mut reader),
        stderr: Stderr::Dropped,
        ..Exec::new("cat; echo dropped >&2")
    };
    let mut bytes = Vec::new();
    guest.exec(exec, &mut bytes).await.unwrap();
    assert_eq!(bytes, b"from a reader");
    let killed = output(guest.as_ref(), "kill -9 $$").await;
    assert_eq!(killed.0, ExitCode(137));
    guest.stop().await;
}

#[tokio::test]
async fn a_command_need_not_read_its_input() {
    let (_dir, guest) = guest(&Dummy::default()).await;
    let input = vec![0; 10 << 20];
    let exec = Exec::with_stdin("exit 3", &input);
    assert_eq!(
        guest.exec(exec, &mut Vec::new()).await.unwrap(),
        ExitCode(3)
    );
    guest.stop().await;
}

#[tokio::test]
async fn stopping_leaves_no_process_without_the_mark_or_in_another_session() {
    let (dir, guest) = guest(&Dummy::default()).await;
    let script = "setsid sleep 600 & echo $!; env -i sleep 600 & echo $!";
    let pids = output(guest.as_ref(), script).await.1;
    guest.stop().await;
    assert!(!something_lives(&dir));
    for pid in pids.lines() {
        let start = Instant::now();
        while runs(pid) {
            assert!(start.elapsed() < Duration::from_secs(20), "{pid} lives");
            std::thread::yield_now();
        }
    }
    assert_eq!(pids.lines().count(), 2);
    assert_eq!(guest.gone().await, Gone::Stopped);
    let after = guest.exec(Exec::new("echo"), &mut Vec::new()).await;
    assert!(matches!(after, Err(GuestError::Gone(Gone::Stopped))));
}

/// Whether the process is there, and no zombie that nobody has waited for.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}

#[tokio::test]
async fn dropping_a_guest_kills_it() {
    let (dir, guest) = guest(&Dummy::default()).await;
    output(guest.as_ref(), "sleep 600 &").await;
    drop(guest);
    tokio::task::spawn_blocking(move || assert_nothing_lives_soon(&dir))
        .await
        .unwrap();
}

/// What the death of this process does: the holder's input ends.
#[test]
fn a_guest_dies_with_the_runtime_it_was_started_on() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (dir, guest) = runtime.block_on(async {
        let (dir, guest) = guest(&Dummy::default()).await;
        output(guest.as_ref(), "sleep 600 &").await;
        (dir, guest)
    });
    runtime.shutdown_background();
    assert_nothing_lives_soon(&dir);
    drop(guest);
}

#[tokio::test]
async fn a_guest_that_goes_fails_what_runs_and_what_comes_after() {
    let (dir, guest) = guest(&Dummy::default()).await;
    let (one, two) = tokio::join!(
        async { guest.exec(Exec::new("hang"), &mut Vec::new()).await },
        async { guest.exec(Exec::new("vanish"), &mut Vec::new()).await },
    );
    for result in [one, two, guest.fresh_login().await.map(|()| ExitCode(0))] {
        assert!(matches!(result, Err(GuestError::Gone(Gone::PoweredOff))));
    }
    guest.stop().await;
    assert!(!something_lives(&dir));
}

#[tokio::test]
async fn a_command_ends_when_its_process_exits_and_the_background_can_still_write() {
    let (_dir, guest) = guest(&Dummy::default()).await;
    let script = "mkfifo go; (read -r _ <go; echo late; touch alive) & echo early";
    assert_eq!(output(guest.as_ref(), script).await.1, "early\n");
    let script = "echo >go; while [ ! -e alive ]; do :; done; echo seen";
    assert_eq!(output(guest.as_ref(), script).await.1, "seen\n");
    guest.stop().await;
}

#[tokio::test]
async fn a_guest_that_is_none_has_done_whatever_it_is_told_until_it_is_stopped() {
    let (_dir, guest) = guest(&Dummy::new(Start::Null)).await;
    let (code, said) = output(&*guest, "echo; exit 3").await;
    assert_eq!((code, said.as_str()), (ExitCode(0), ""));
    guest.stop().await;
    assert_eq!(guest.gone().await, Gone::Stopped);
    assert!(
        guest
            .exec(Exec::new("true"), &mut Vec::new())
            .await
            .is_err()
    );
}
