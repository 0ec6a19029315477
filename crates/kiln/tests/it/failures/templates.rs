//! Templates that can't be made or used, and QEMUs that are not ours: the guest
//! is booted instead, or the reason is said.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use super::support::{Images, REAL_QEMU, manifest, own_mounts, with_qemu};
use crate::harness::{Invocation, Kiln, Turn};

const HELLO: &str = "tasks:\n- hello: echo hi\n";
const BOOTED: &str = "the guest is booted instead";

/// A QEMU that dies when it has been given its state.
const DIES_IN_RESTORE: &str = r#"#!/usr/bin/python3
import json, os, re, signal, socket, sys
if "-incoming" not in sys.argv:
    os.execv(REAL, ["qemu-system-x86_64", *sys.argv[1:]])
control = socket.socket(fileno=int(re.search(r"id=control,fd=(\d+)", " ".join(sys.argv))[1]))
stream = control.makefile("rw")
print('{"QMP": {}}', file=stream, flush=True)
for line in stream:
    request = json.loads(line)
    if request["execute"] == "migrate-incoming":
        os.kill(os.getpid(), signal.SIGKILL)
    print(json.dumps({"return": {}, "id": request["id"]}), file=stream, flush=True)
"#;

fn program(kiln: &Kiln, text: &str) -> PathBuf {
    let path = kiln.file("qemu", text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    path
}

/// With templates of its own.
fn hello(kiln: &Kiln) -> Invocation<'_> {
    let run = kiln.run(HELLO).arg("-v").takes_turns(false);
    run.env("XDG_CACHE_HOME", kiln.home().join("cache"))
}

fn templates(kiln: &Kiln) -> Vec<PathBuf> {
    let entries = fs::read_dir(kiln.home().join("cache/kiln/templates"));
    let paths = entries
        .expect("templates")
        .flatten()
        .map(|entry| entry.path());
    paths.filter(|path| path.is_dir()).collect()
}

fn the_template(kiln: &Kiln) -> PathBuf {
    let found = templates(kiln);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[test]
fn whatever_is_wrong_with_a_template_the_job_runs() {
    let _turns = [Turn::take(), Turn::take()];
    let kiln = Kiln::new();
    // Two that share images and a cache: one makes it, the other one waits.
    let both = [hello(&kiln).start(), hello(&kiln).start()];
    let both = both.map(|run| run.expect_status(0));
    let making = |ended: &&crate::harness::Ended| ended.stderr().contains("making one");
    assert_eq!(
        both.iter().filter(making).count(),
        1,
        "{} {}",
        both[0],
        both[1]
    );
    both.iter().for_each(|ended| {
        ended.expect_stderr("template: identity");
    });
    // Cut short.
    let memory = fs::File::options()
        .write(true)
        .open(the_template(&kiln).join("memory"));
    let memory = memory.expect("the memory");
    let length = memory.metadata().expect("its length").len();
    memory.set_len(length - 4096).expect("shorter");
    let ended = hello(&kiln).expect_success();
    ended
        .expect_stderr("template here was cut short or changed: making another")
        .expect_stderr("template: identity");
    // Changed, by something that keeps length and time.
    let state = the_template(&kiln).join("state");
    let time = fs::metadata(&state)
        .and_then(|meta| meta.modified())
        .expect("a time");
    let mut bytes = fs::read(&state).expect("the state");
    bytes
        .iter_mut()
        .skip(64)
        .step_by(3)
        .for_each(|byte| *byte ^= 0x55);
    fs::write(&state, bytes).expect("another state");
    let written = fs::File::open(&state).and_then(|file| file.set_modified(time));
    written.expect("the old time");
    let ended = hello(&kiln).expect_success();
    ended
        .expect_stderr("the template of debian/bookworm failed: ")
        .expect_stderr(BOOTED);
    assert_eq!(templates(&kiln), Vec::<PathBuf>::new());
    // Killed while it is restored. Nobody waits for the mark of the last failure.
    let forget = format!(
        "rm {}/*.failed",
        kiln.home().join("cache/kiln/templates").display()
    );
    assert!(
        Command::new("sh")
            .args(["-c", &forget])
            .status()
            .expect("sh")
            .success()
    );
    let qemu = program(
        &kiln,
        &DIES_IN_RESTORE.replace("REAL", &format!("{REAL_QEMU:?}")),
    );
    let ended = hello(&kiln).through(with_qemu(&qemu)).expect_success();
    ended
        .expect_stderr("the template of debian/bookworm failed: QEMU's control socket: ")
        .expect_stderr(BOOTED);
    ended.expect_line("hello", "hi");
}

/// A `/tmp` without a free byte, and a small cache. What the test needs of
/// `/tmp` is seen there all the same.
const FULL: &str = "exec 8<\"$HOME\" && mount -t tmpfs -o size=64k none /tmp && \
    mkdir -p \"$HOME\" && mount --no-canonicalize --bind /proc/self/fd/8 \"$HOME\" && exec 8<&- && \
    mkdir -p \"$XDG_CACHE_HOME\" && mount -t tmpfs -o size=100m none \"$XDG_CACHE_HOME\" && \
    { cat /dev/zero >/tmp/full 2>/dev/null; cd \"$HOME/work\" && exec \"$@\"; }";

#[test]
fn a_full_tmp_costs_nothing_and_a_full_cache_the_template() {
    let _turn = Turn::take();
    let kiln = Kiln::new();
    let mut words = own_mounts();
    words.extend(["sh", "-c", FULL, "sh"].map(str::to_owned));
    let ended = hello(&kiln).through(words).expect_success();
    ended
        .expect_stderr("MiB are free, a template needs 512 MiB")
        .expect_stderr(BOOTED);
    ended.expect_line("hello", "hi");
}

#[test]
fn a_qemu_of_another_time_is_named_with_its_version() {
    let images = Images::new();
    images.with_words("plain", "");
    for (version, said) in [
        ("4.2.1", "its version 4.2 is too old, kiln needs 5.2"),
        (
            "99.0.0",
            "its version 99.0 is newer than 7.2, which kiln is tested with",
        ),
    ] {
        let kiln = Kiln::with_images(images.path());
        let text = format!(
            "#!/bin/sh\n[ \"$1\" != --version ] || {{ echo QEMU emulator version {version}; exit; }}\necho qemu: -sandbox: no such thing >&2\nexit 1\n"
        );
        let qemu = program(&kiln, &text);
        let run = kiln
            .run(&manifest("plain"))
            .arg("--no-network")
            .takes_turns(false);
        let ended = run.through(with_qemu(&qemu)).expect_status(3);
        ended
            .expect_stderr(said)
            .expect_stderr("-sandbox: no such thing");
        ended.expect_log("the host could not start a guest");
    }
}
