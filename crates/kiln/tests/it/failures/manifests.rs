//! Files that are no manifests.

use std::{fs, path::PathBuf, time::Duration};

use crate::harness::Kiln;

/// Half a GiB of addresses: far more than reading a manifest takes, far less
/// than what a bomb is worth.
const MEMORY: [&str; 2] = ["prlimit", "--as=536870912"];

#[track_caller]
fn is_refused(kiln: &Kiln, file: impl Into<PathBuf>, why: &str) {
    let run = kiln.kiln(["run", "--dummy"]).args([file.into()]);
    let ended = run
        .through(MEMORY)
        .limit(Duration::from_secs(10))
        .expect_status(2);
    ended.expect_stderr(why);
    assert!(!kiln.runs().exists(), "a run was made by {ended}");
}

#[test]
fn a_file_that_is_no_manifest_ends_with_2_and_the_reason() {
    let kiln = Kiln::dummy();
    is_refused(&kiln, kiln.dir(), "is a directory");
    is_refused(&kiln, "missing.yml", "missing.yml: No such file");
    for (name, bytes, why) in [
        ("empty.yml", &b""[..], "the manifest is empty"),
        (
            "utf8.yml",
            b"image: a\ntasks: [{a: \xff}]\n",
            "line 2, column 13: the byte 0xff is not valid UTF-8",
        ),
        ("zero.yml", b"image: a\0b\n", "U+0000"),
        ("text.yml", b"hello", "line 1"),
    ] {
        is_refused(&kiln, kiln.file(name, bytes), why);
    }
}

#[test]
fn a_manifest_of_ten_megabytes_is_refused_without_being_read_whole() {
    let kiln = Kiln::dummy();
    let script = "    echo\n".repeat(10 << 20 >> 3);
    let large = format!("image: a\ntasks:\n- a: |\n{script}");
    is_refused(
        &kiln,
        kiln.file("large.yml", large),
        "more than the 1048576 bytes",
    );
    is_refused(&kiln, "/dev/zero", "more than the 1048576 bytes");
}

#[test]
fn deep_nesting_and_a_bomb_of_aliases_are_refused_in_flat_memory() {
    let kiln = Kiln::dummy();
    let brackets = format!("image: {}{}", "[".repeat(7000), "]".repeat(7000));
    is_refused(
        &kiln,
        kiln.file("brackets.yml", brackets),
        "nested too deep",
    );
    let braces = format!("image: {}{}", "{a: ".repeat(3000), "}".repeat(3000));
    is_refused(&kiln, kiln.file("braces.yml", braces), "nested more than");
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (one, next) in ('a'..='i').zip('b'..='j') {
        let repeated = vec![format!("*{one}"); 9].join(",");
        bomb.push_str(&format!("{next}: &{next} [{repeated}]\n"));
    }
    is_refused(&kiln, kiln.file("bomb.yml", bomb), "aliases");
}

#[test]
fn a_pipe_without_a_writer_is_not_waited_for() {
    let kiln = Kiln::dummy();
    let pipe = kiln.dir().join("pipe");
    let mode = rustix::fs::Mode::from_bits_truncate(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a pipe");
    is_refused(&kiln, &pipe, "a pipe that nobody writes into");
}

fn locked(kiln: &Kiln) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let file = kiln.file("locked.yml", "image: a\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).expect("a mode");
    file
}

#[test]
fn a_manifest_that_may_not_be_read_says_so() {
    if rustix::process::geteuid().is_root() {
        // Root may read everything.
        return;
    }
    let kiln = Kiln::dummy();
    is_refused(&kiln, locked(&kiln), "Permission denied");
}
