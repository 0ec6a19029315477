//! Runs that end before there is a guest: interrupted, or with something wrong.
//! They leave nothing, a folder among the kept runs included.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::harness::{Ended, Kiln};

#[track_caller]
fn left_no_run(kiln: &Kiln, ended: &Ended) {
    let runs: Vec<_> = fs::read_dir(kiln.runs()).into_iter().flatten().collect();
    assert!(runs.is_empty(), "{runs:?} of {ended}");
}

/// A pipe that somebody has open and writes nothing into.
fn silent_pipe(kiln: &Kiln) -> (PathBuf, fs::File) {
    let pipe = kiln.dir().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    let open = OpenOptions::new().read(true).write(true).open(&pipe);
    (pipe, open.expect("a pipe"))
}

/// Waits until a process has opened this file.
#[track_caller]
fn has_open(pid: u32, file: &Path) {
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(20) {
        let mut fds = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        if fds.any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == file)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{} was never opened", file.display());
}

#[test]
fn a_signal_while_a_secret_is_waited_for_ends_with_130() {
    for signal in [Signal::INT, Signal::TERM] {
        let kiln = Kiln::dummy();
        let (pipe, writer) = silent_pipe(&kiln);
        let running = kiln
            .run("secrets: [key]\ntasks:\n- one: echo\n")
            .args(["--secret".to_owned(), format!("key={}", pipe.display())])
            .start();
        // Signals are caught before the first file is opened.
        has_open(running.pid(), &pipe);
        running.signal(signal);
        let ended = running.expect_status(130);
        ended.expect_stderr("interrupted");
        left_no_run(&kiln, &ended);
        drop(writer);
    }
}

#[test]
fn what_is_wrong_before_the_job_begins_takes_no_place_among_the_kept_runs() {
    let kiln = Kiln::dummy();
    let run = kiln.run("sources: [https://example.org/x]\ntasks:\n- one: echo\n");
    let ended = run.args(["--here"]).expect_status(2);
    ended.expect_stderr("--here: ");
    left_no_run(&kiln, &ended);

    let images = tempfile::tempdir().expect("a directory");
    let kiln = Kiln::with_images(images.path());
    let run = kiln.run("tasks:\n- one: echo\n").takes_turns(false);
    let ended = run.expect_status(3);
    ended.expect_stderr("no image `debian/bookworm`");
    left_no_run(&kiln, &ended);
}

#[test]
fn without_a_place_for_its_cache_kiln_goes_on() {
    let images = tempfile::tempdir().expect("a directory");
    let kiln = Kiln::with_images(images.path());
    let run = kiln
        .run("tasks:\n- one: echo\n")
        .takes_turns(false)
        .through(["env", "-u", "HOME", "-u", "XDG_CACHE_HOME"]);
    run.expect_status(3)
        .expect_stderr("no image `debian/bookworm`");
}

#[test]
fn a_loopback_port_may_be_named_twice_but_not_for_two_addresses() {
    let kiln = Kiln::dummy();
    let run = || kiln.run("tasks:\n- one: echo\n");
    let twice = ["--allow", "localhost:8080", "--allow", "127.0.0.1:8080"];
    run().args(twice).expect_success();
    let two = ["--allow", "localhost:80", "--allow", "[::1]:80"];
    run()
        .args(two)
        .expect_status(2)
        .expect_stderr("--allow: 127.0.0.1:80 and [::1]:80 can't both be 10.0.2.2:80");
}
