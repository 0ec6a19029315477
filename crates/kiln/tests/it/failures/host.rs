//! Hosts that lack something, and many runs on one.

use std::{fs, path::PathBuf, process::Command};

use super::support::{
    FOR_EVER, Images, Process, all_gone, family, manifest, member, own_mounts, scratch_is_gone,
    tells_nothing_of_the_host,
};
use crate::harness::{self, Ended, IMAGE, Kiln, Running, Turn};

/// Runs kiln with a small disk for its state that goes with it. An ordinary
/// user may mount one in namespaces of its own.
fn small_disk(size: &str) -> Vec<String> {
    let mount = format!(
        "mkdir -p \"$XDG_STATE_HOME\" && mount -t tmpfs -o size={size} none \"$XDG_STATE_HOME\" && exec \"$@\""
    );
    let mut words = own_mounts();
    words.extend(["sh", "-c", &mount, "sh"].map(str::to_owned));
    words
}

#[test]
fn a_host_without_room_for_a_guest_says_so_before_it_starts() {
    let images = Images::new();
    images.with_init("stuck", FOR_EVER);
    let kiln = Kiln::with_images(images.path());
    let run = kiln
        .run(&manifest("stuck"))
        .through(small_disk("100m"))
        .takes_turns(false);
    let ended = run.expect_status(3);
    ended.expect_stderr("MiB are free, a guest needs 256 MiB at the least");
    ended.expect_stdout("start: the host could not start a guest");
}

#[test]
fn a_host_that_runs_full_under_a_guest_ends_the_run_with_3() {
    let kiln = Kiln::new();
    let manifest = "tasks:\n- fill: |\n    dd if=/dev/urandom of=big bs=1M count=600 conv=fsync\n";
    let run = kiln
        .run(manifest)
        .args(["--no-network"])
        .through(small_disk("300m"));
    let ended = run.expect_status(3);
    ended.expect_stdout("the host had no disk space left for what the guest wrote");
    let said = ended.stdout();
    assert!(
        !said.contains("qemu") && !said.contains(".guest"),
        "{ended}"
    );
}

#[test]
fn a_log_that_finds_no_room_ends_the_run_with_3() {
    let kiln = Kiln::dummy();
    let run = kiln
        .run("tasks:\n- flood: flood 100000000\n")
        .through(small_disk("8m"));
    run.expect_status(3)
        .expect_stderr("the host could not store the job's log: no space is left on it");
}

#[test]
fn a_state_directory_that_is_none_ends_with_3_and_its_name() {
    let kiln = Kiln::dummy();
    let file = kiln.file("file", "");
    let run = kiln
        .run("tasks:\n- hello: echo hi\n")
        .env("XDG_STATE_HOME", &file);
    run.expect_status(3)
        .expect_stderr("the run's folder can't be made: ");
    let run = kiln.run("tasks:\n- hello: echo hi\n").through([
        "env",
        "-u",
        "HOME",
        "-u",
        "XDG_STATE_HOME",
    ]);
    run.expect_status(3)
        .expect_stderr("neither XDG_STATE_HOME nor HOME is set to a directory");
}

#[test]
fn more_memory_than_there_is_is_refused_with_both_numbers() {
    let kiln = Kiln::new();
    let run = kiln
        .run("tasks:\n- hello: echo hi\n")
        .args(["--memory", "10000000"]);
    let ended = run.takes_turns(false).expect_status(3);
    ended
        .expect_stderr("the guest wants 10000000 MiB of memory")
        .expect_stderr("MiB are available");
    tells_nothing_of_the_host(&ended, &harness::images());
}

/// As on a host that forbids user namespaces.
const FORBIDDEN: [&str; 6] = [
    "unshare",
    "--user",
    "--map-root-user",
    "sh",
    "-c",
    "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\"",
];

#[test]
fn a_host_that_forbids_namespaces_runs_a_guest_without_network_and_keeps_nothing() {
    let kiln = Kiln::new();
    let ended = kiln
        .run("tasks:\n- hello: echo hi\n")
        .through(FORBIDDEN)
        .expect_success();
    ended.expect_stderr("this host forbids user namespaces, so the guest has no network");
    ended.expect_line("hello", "hi");
    let images = Images::new();
    images.with_init("stuck", FOR_EVER);
    let kiln = Kiln::with_images(images.path());
    let running = kiln
        .run(&manifest("stuck"))
        .through(FORBIDDEN)
        .takes_turns(false)
        .start();
    member(running.pid(), "-nodefaults");
    let family = family(running.pid());
    running.signal(rustix::process::Signal::KILL);
    running.end();
    all_gone(&family);
}

/// As Ubuntu's rule does: the kernel says no (here because of a chroot), and
/// the setting says why.
const APPARMOR: &str = "mount -t tmpfs none /proc/sys/kernel && \
    echo 1 >/proc/sys/kernel/apparmor_restrict_unprivileged_userns && \
    mkdir \"$HOME/root\" && mount --rbind / \"$HOME/root\" && exec chroot \"$HOME/root\" \"$@\"";

#[test]
fn ubuntus_rule_against_namespaces_is_named() {
    let images = Images::new();
    images.with_functions("mute", "default_arch=amd64\nboot() { exit 7; }\n");
    let kiln = Kiln::with_images(images.path());
    let file = kiln.file("mute.yml", manifest("mute"));
    let mut words = own_mounts();
    words.extend(["sh", "-c", APPARMOR, "sh"].map(str::to_owned));
    let ended = kiln.kiln(["run"]).arg(file).through(words).expect_status(3);
    ended.expect_stderr("this host forbids user namespaces, so the guest has no network: AppArmor: kernel.apparmor_restrict_unprivileged_userns is 1; see `kiln doctor`");
}

#[test]
fn fifty_runs_at_once_do_not_disturb_each_other() {
    let kiln = Kiln::dummy();
    let kilns: Vec<(usize, Kiln)> = (0..50).map(|number| (number, Kiln::dummy())).collect();
    let started: Vec<(usize, Running)> = kilns
        .iter()
        .map(|(number, own)| {
            // Half of them in one home, half in homes of their own.
            let kiln = if number % 2 == 0 { &kiln } else { own };
            let manifest = kiln.file(
                &format!("{number}.yml"),
                format!("image: {IMAGE}\nartifacts: [a]\ntasks:\n- say: echo {number} | tee a\n"),
            );
            (
                *number,
                kiln.kiln(["run", "--dummy"]).args([manifest]).start(),
            )
        })
        .collect();
    for (number, running) in started {
        let ended = running.expect_status(0);
        ended.expect_stdout(&format!("\n{number}\n"));
        if number % 2 == 1 {
            assert_eq!(ended.artifact("a"), format!("{number}\n").as_bytes());
            scratch_is_gone(ended.folder());
        }
    }
    let runs: Vec<PathBuf> = fs::read_dir(kiln.runs())
        .expect("runs")
        .map(|entry| entry.expect("a run").path())
        .collect();
    assert!(
        (20..=25).contains(&runs.len()),
        "{} runs are kept",
        runs.len()
    );
    runs.iter().for_each(|run| scratch_is_gone(run));
}

/// Four guests, and nothing left of them.
#[track_caller]
fn four_at_once(start: impl Fn() -> Running) -> Vec<Ended> {
    // All that may run at once, so that nobody else's guests are in the way.
    let turns = [Turn::take(), Turn::take()];
    let started: Vec<Running> = (0..4).map(|_| start()).collect();
    let families: Vec<Vec<Process>> = started
        .iter()
        .map(|running| {
            member(running.pid(), "-nodefaults");
            family(running.pid())
        })
        .collect();
    let ended: Vec<Ended> = started
        .into_iter()
        .map(|running| running.expect_status(0))
        .collect();
    families.iter().for_each(|family| all_gone(family));
    drop(turns);
    ended
}

fn say(kiln: &Kiln) -> PathBuf {
    kiln.file(
        "say.yml",
        format!("image: {IMAGE}\ntasks:\n- say: hostname\n"),
    )
}

#[test]
fn four_real_guests_at_once_leave_nothing() {
    let kiln = Kiln::new();
    let manifest = say(&kiln);
    let ended = four_at_once(|| kiln.kiln(["run"]).args([&manifest]).start());
    for ended in ended {
        ended.expect_line("say", "build");
        scratch_is_gone(ended.folder());
    }
}

/// Nobody's number.
const ORDINARY: &str = "43210";

#[test]
fn an_ordinary_user_runs_four_guests_at_once_and_leaves_nothing() {
    if !rustix::process::geteuid().is_root() {
        // All the other tests are an ordinary user's.
        return;
    }
    let images = tempfile::Builder::new()
        .prefix("kiln-it-images-")
        .tempdir()
        .expect("a directory");
    harness::copy_images(images.path());
    let kiln = Kiln::with_images(images.path());
    let binary = kiln.home().join("kiln");
    fs::copy(env!("CARGO_BIN_EXE_kiln"), &binary).expect("the binary");
    // The build's own directory may be closed to others.
    let by_user = format!(
        "shift; exec setpriv --reuid {ORDINARY} --regid {ORDINARY} --clear-groups -- {} \"$@\"",
        binary.display()
    );
    let give = Command::new("chown")
        .args(["-R", ORDINARY])
        .arg(kiln.home())
        .status();
    assert!(give.expect("chown").success());
    let manifest = say(&kiln);
    let ended = four_at_once(|| {
        kiln.kiln(["run"])
            .args([&manifest])
            .env("XDG_CACHE_HOME", kiln.home().join("cache"))
            .through(["sh", "-c", &by_user, "sh"])
            .start()
    });
    for ended in ended {
        ended.expect_line("say", "build");
        scratch_is_gone(ended.folder());
    }
}
