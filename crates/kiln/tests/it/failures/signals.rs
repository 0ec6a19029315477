//! Signals to kiln, and the death of any part of it.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::support::{
    FOR_EVER, Images, Process, all_gone, eventually, family, manifest, member, scratch_is_gone,
    tells_nothing_of_the_host,
};
use crate::{
    harness::{self, Ended, Kiln, Running},
    network::own_address,
};

fn kill(process: &Process) {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    // It may have ended by itself.
    let _ = kill_process(pid.expect("a process"), Signal::KILL);
}

/// Kills kiln where it stands. What there was of it must not outlive it.
#[track_caller]
fn kill_outright(running: Running) -> Ended {
    running.signal(Signal::STOP);
    let family = family(running.pid());
    running.signal(Signal::KILL);
    let ended = running.end();
    if !family.is_empty() {
        all_gone(&family);
    }
    ended
}

/// Says hello to whoever connects, from now on.
fn answer_all(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = "HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
            let _ = stream.and_then(|mut stream| {
                let _ = stream.read(&mut [0; 1024]);
                stream.write_all(answer.as_bytes())
            });
        }
    });
}

fn stuck() -> Images {
    let images = Images::new();
    images.with_init("stuck", FOR_EVER);
    images
}

/// By itself, or for a template.
fn start_stuck(kiln: &Kiln, how: &[&str]) -> Running {
    kiln.run(&manifest("stuck"))
        .args(["--cpus", "1"])
        .args(how)
        .takes_turns(false)
        .start()
}

#[test]
fn any_signal_that_asks_to_end_stops_a_task_and_ends_with_130() {
    let kiln = Kiln::dummy();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let running = kiln.run("tasks:\n- wait: echo ready; hang\n").start();
        running.wait_for_stdout("\nready");
        let family = family(running.pid());
        running.signal(signal);
        let ended = running.expect_status(130);
        all_gone(&family);
        ended
            .expect_log("the job was cancelled")
            .expect_stderr("stopping the guest");
        scratch_is_gone(ended.folder());
    }
}

#[test]
fn ctrl_c_while_a_guest_starts_leaves_nothing() {
    let images = stuck();
    let kiln = Kiln::with_images(images.path());
    for (times, how) in [(1, &["--cold"][..]), (2, &["--cold"]), (1, &[]), (2, &[])] {
        let running = start_stuck(&kiln, how);
        member(running.pid(), "slirp4netns");
        member(running.pid(), "-nodefaults");
        let family = family(running.pid());
        for _ in 0..times {
            running.signal(Signal::INT);
        }
        let ended = running.expect_status(130);
        all_gone(&family);
        assert!(times == 2 || !ended.folder().join(".guest").exists());
    }
}

#[test]
fn ctrl_c_in_a_real_guests_task_leaves_nothing() {
    let kiln = Kiln::new();
    let running = kiln.run("tasks:\n- wait: echo ready; sleep 600\n").start();
    running.wait_for_stdout("\nready");
    let family = family(running.pid());
    running.signal(Signal::INT);
    let ended = running.expect_status(130);
    all_gone(&family);
    tells_nothing_of_the_host(&ended, &harness::images());
    scratch_is_gone(ended.folder());
}

#[test]
fn a_killed_kiln_takes_its_guest_along_at_any_moment_and_the_next_run_tidies() {
    let images = stuck();
    let kiln = Kiln::with_images(images.path());
    for moment in [5, 20, 40, 60, 80, 100, 130, 170, 250, 400, 800, 1600] {
        let running = start_stuck(&kiln, &[]);
        // Not waiting for anything: the moments are the test.
        std::thread::sleep(Duration::from_millis(moment));
        kill_outright(running);
    }
    let running = start_stuck(&kiln, &["--cold"]);
    member(running.pid(), "slirp4netns");
    member(running.pid(), "-nodefaults");
    let killed = running.folder();
    kill_outright(running);
    assert!(killed.join(".guest/machine/disk.qcow2").exists());
    kiln.run("tasks:\n- hello: echo hi\n")
        .args(["--dummy"])
        .takes_turns(false)
        .expect_success();
    scratch_is_gone(&killed);
    let left = std::fs::read_dir(kiln.runs()).expect("runs").flatten();
    for run in left {
        scratch_is_gone(&run.path());
    }
}

#[test]
fn a_dead_part_of_a_starting_guest_ends_the_run_with_a_reason() {
    let images = stuck();
    let kiln = Kiln::with_images(images.path());
    for part in ["-nodefaults", "__namespace-init", "__namespace full"] {
        let running = start_stuck(&kiln, &["--cold"]);
        member(running.pid(), "-nodefaults");
        member(running.pid(), "slirp4netns");
        let family = family(running.pid());
        kill(&member(running.pid(), part));
        let ended = running.expect_status(3);
        all_gone(&family);
        // One that was not heard of yet has not even started.
        let why = [
            "the virtual machine ended unexpectedly while it started",
            "the host could not start a guest",
        ];
        assert!(
            why.iter().any(|why| ended.log().contains(why)),
            "{part}: {ended}"
        );
        tells_nothing_of_the_host(&ended, images.path());
        scratch_is_gone(ended.folder());
    }
}

/// Goes on once a file is there: what happens meanwhile is the test's.
const UPLINK: &str = "tasks:\n\
    - wait: |\n\
    \x20   echo ready\n\
    \x20   until curl -sfm 10 http://ADDRESS/hello; do sleep 1; done\n\
    - next: echo went; sleep 600\n";

#[test]
fn a_build_goes_on_with_another_uplink_and_one_without_its_machine_ends_with_3() {
    let kiln = Kiln::new();
    let Some(address) = own_address() else {
        // A host without a network has no uplink to lose.
        return;
    };
    let served = TcpListener::bind((address, 0)).expect("a port");
    let address = served.local_addr().expect("an address").to_string();
    let manifest = UPLINK.replace("ADDRESS", &address);
    let running = kiln.run(&manifest).args(["--allow", &address]).start();
    running.wait_for_stdout("\nready");
    let first = member(running.pid(), "slirp4netns");
    kill(&first);
    running.wait_for_stderr("slirp4netns, the guest's uplink, ended");
    eventually("another uplink", Duration::from_secs(30), || {
        let now = family(running.pid()).into_iter();
        let mut others = now.filter(|process| process.command.contains("slirp4netns"));
        others.find(|process| *process != first)
    });
    answer_all(served);
    running.wait_for_stdout("\nwent");
    let family = family(running.pid());
    kill(&member(running.pid(), "-nodefaults"));
    let ended = running.expect_status(3);
    all_gone(&family);
    ended.expect_log("task next: the virtual machine ended unexpectedly");
    tells_nothing_of_the_host(&ended, &harness::images());
    scratch_is_gone(ended.folder());
}

#[test]
fn a_killed_run_on_the_dummy_machine_leaves_no_process() {
    let kiln = Kiln::dummy();
    let running = kiln.run("tasks:\n- wait: echo ready; hang\n").start();
    running.wait_for_stdout("\nready");
    kill_outright(running);
    kiln.run("tasks:\n- hello: echo hi\n").expect_success();
}
