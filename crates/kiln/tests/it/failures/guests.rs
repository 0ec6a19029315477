//! Guests that nobody can work with.

use std::time::Duration;

use super::support::{
    FOR_EVER, Images, NETWORK, Process, all_gone, family, manifest, member, scratch_is_gone,
    tells_nothing_of_the_host,
};
use crate::harness::{Ended, Kiln, Running};

/// Tiny guests are up in two or three seconds.
const PATIENCE: [&str; 4] = ["--boot-timeout", "12s", "--cpus", "1"];

fn boot(kiln: &Kiln, name: &str) -> (Running, Process) {
    let run = kiln
        .run(&manifest(name))
        .args(PATIENCE)
        .args(["--no-network"]);
    let running = run.takes_turns(false).start();
    let guest = member(running.pid(), "-nodefaults");
    (running, guest)
}

#[track_caller]
fn never_started(running: Running, guest: &Process, images: &Images, why: &str) -> Ended {
    let ended = running.expect_status(3);
    assert!(!guest.lives(), "{guest:?} is left of {ended}");
    ended.expect_log(why);
    tells_nothing_of_the_host(&ended, images.path());
    scratch_is_gone(ended.folder());
    ended
}

#[test]
fn a_guest_that_lets_nobody_in_ends_the_run_at_its_boot_deadline() {
    let images = Images::new();
    let garbage = "/bin/busybox yes | /bin/busybox nc -l -p 22";
    let mute = "/bin/busybox nc -l -p 22 -e /bin/busybox sleep 1000";
    images
        .with_init("stuck", FOR_EVER)
        .with_init("garbage", &format!("{NETWORK} while :; do {garbage}; done"))
        .with_init("mute", &format!("{NETWORK} while :; do {mute}; done"))
        .with_init(
            "chatty",
            "while :; do echo line after line after line; done",
        );
    let names = ["stuck", "garbage", "mute", "chatty"];
    let kilns: Vec<Kiln> = names
        .iter()
        .map(|_| Kiln::with_images(images.path()))
        .collect();
    let started: Vec<_> = kilns
        .iter()
        .zip(names)
        .map(|(kiln, name)| boot(kiln, name))
        .collect();
    for (running, guest) in started {
        let ended = never_started(running, &guest, &images, "the guest never let us in");
        assert!(ended.took < Duration::from_secs(40), "late: {ended}");
    }
}

#[test]
fn a_guest_that_ends_while_it_starts_says_how() {
    let images = Images::new();
    images
        .with_init("panic", "exit 3")
        .with_init("off", "/bin/busybox poweroff -f");
    let kiln = Kiln::with_images(images.path());
    for (name, why) in [
        ("panic", "the guest's kernel panicked while it started"),
        (
            "off",
            "the guest was powered off from inside while it started",
        ),
    ] {
        let (running, guest) = boot(&kiln, name);
        never_started(running, &guest, &images, why);
    }
}

#[test]
fn time_that_runs_out_while_a_guest_starts_ends_with_124() {
    let images = Images::new();
    images.with_init("stuck", FOR_EVER);
    let kiln = Kiln::with_images(images.path());
    let run = kiln
        .run(&manifest("stuck"))
        .args(["--timeout", "3s"])
        .takes_turns(false);
    let running = run.start();
    member(running.pid(), "slirp4netns");
    let family = family(running.pid());
    let ended = running.expect_status(124);
    all_gone(&family);
    ended.expect_log("the job took longer than the 3.0 s it may");
    scratch_is_gone(ended.folder());
}
