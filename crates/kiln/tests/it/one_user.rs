//! Server and worker of one host run as one user: what the worker is not to know of the
//! server.

use std::{fs, path::Path, process::Command};

use crate::harness::Kiln;

/// Who that is where the tests are root's, who may read everything.
const ORDINARY: &str = "20319";

/// Words that make a command that user's.
fn as_user() -> Vec<String> {
    let mut words = Vec::new();
    if rustix::process::geteuid().is_root() {
        let setpriv = ["setpriv", "--reuid", ORDINARY, "--regid", ORDINARY];
        words.extend(setpriv.map(str::to_owned));
        words.extend(["--clear-groups".to_owned(), "--".to_owned()]);
    }
    words
}

fn may_read(file: &str) -> bool {
    let mut words = as_user();
    words.extend(["cat", file].map(str::to_owned));
    let output = Command::new(&words[0]).args(&words[1..]).output();
    output.expect("cat").status.success()
}

/// A home that is this user's, with a kiln in it: the build's own may be closed to others.
fn moved_in(kiln: &Kiln) -> String {
    let binary = kiln.home().join("kiln");
    fs::copy(env!("CARGO_BIN_EXE_kiln"), &binary).expect("the binary");
    if rustix::process::geteuid().is_root() {
        give(kiln.home());
    }
    binary.display().to_string()
}

fn give(dir: &Path) {
    let status = Command::new("chown")
        .args(["-R", ORDINARY])
        .arg(dir)
        .status();
    assert!(status.expect("chown").success());
}

#[test]
fn nobody_else_of_a_servers_user_reads_its_passwords() {
    let kiln = Kiln::without_images();
    let shell = format!(
        "shift; exec {} {} \"$@\"",
        as_user().join(" "),
        moved_in(&kiln)
    );
    let server = kiln
        .kiln(["serve", "--no-worker", "--listen", "127.0.0.1:0"])
        .env("KILN_S3_SECRET_KEY", "nobody reads this")
        .through(["sh", "-c", &shell, "sh"])
        .start();
    server.wait_for_stderr("serving http://");
    for file in ["environ", "maps", "fd/0"] {
        let file = format!("/proc/{}/{file}", server.pid());
        assert!(!may_read(&file), "{file} can be read");
    }
    let own = format!("/proc/{}/status", server.pid());
    assert!(may_read(&own), "what all may read, it may");
}
