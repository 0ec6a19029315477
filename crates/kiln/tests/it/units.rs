//! The units of `deploy/systemd`, as far as systemd can tell without running them.
//! `make deploy-test` runs them, on hosts of kiln's own.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::harness;

/// Each unit, and the exposure that `systemd-analyze security` may find in it, times
/// ten: what it finds today, and a little for checks of a newer systemd.
const UNITS: &[(&str, u32)] = &[
    ("kiln-serve.service", 15),
    ("kiln-migrate.service", 15),
    ("kiln-worker.service", 35),
];

/// The units, with this build's kiln in place of the installed one.
fn units() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (unit, _) in UNITS {
        let text = fs::read_to_string(file(unit)).expect("the unit");
        let text = text.replace("/usr/local/bin/kiln", env!("CARGO_BIN_EXE_kiln"));
        fs::write(dir.path().join(unit), text).expect("a file");
    }
    dir
}

fn file(name: &str) -> std::path::PathBuf {
    harness::root().join("deploy/systemd").join(name)
}

fn said(command: &mut Command) -> Output {
    command
        .env("SYSTEMD_LOG_LEVEL", "warning")
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; `scripts/setup tests` installs it"))
}

fn expect_nothing_wrong(command: &mut Command) {
    let output = said(command);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && complaints.is_empty(),
        "{command:?}: {}\n{complaints}",
        output.status
    );
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let dir = units();
    let files = UNITS.iter().map(|(unit, _)| dir.path().join(unit));
    expect_nothing_wrong(
        Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .args(files),
    );
}

#[test]
fn the_units_are_as_hardened_as_they_were() {
    let dir = units();
    for (unit, most) in UNITS {
        let output = said(
            Command::new("systemd-analyze")
                .args(["security", "--offline=true", "--no-pager"])
                .arg(format!("--threshold={most}"))
                .arg(dir.path().join(unit)),
        );
        let table = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{unit} is over {most}:\n{table}");
    }
}

#[test]
fn all_units_run_as_kiln_with_nothing_to_gain() {
    for (unit, _) in UNITS {
        let text = fs::read_to_string(file(unit)).expect("the unit");
        let lines: Vec<&str> = text.lines().collect();
        for line in [
            "User=kiln",
            "NoNewPrivileges=yes",
            "CapabilityBoundingSet=",
            "AmbientCapabilities=",
            "ProtectSystem=strict",
            "UMask=0077",
        ] {
            assert!(lines.contains(&line), "{unit} has no {line}");
        }
    }
}

#[test]
fn the_user_and_the_directories_are_what_systemd_can_make() {
    let root = tempfile::tempdir().expect("a directory");
    let etc = root.path().join("etc");
    fs::create_dir(&etc).expect("a directory");
    let at = format!("--root={}", root.path().display());
    // Without root it can't give files to others, and says so by its status.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    expect_nothing_wrong(
        Command::new("systemd-sysusers")
            .arg(&at)
            .arg(file("kiln.sysusers")),
    );
    let passwd = fs::read_to_string(etc.join("passwd")).expect("users");
    let shell = passwd.lines().find(|line| line.starts_with("kiln:"));
    assert!(
        shell.is_some_and(|line| line.contains(":/var/lib/kiln:") && line.ends_with("nologin")),
        "{passwd}"
    );
    expect_nothing_wrong(
        Command::new("systemd-tmpfiles")
            .args(["--create", at.as_str()])
            .arg(file("kiln.tmpfiles")),
    );
    for dir in ["etc/kiln", "var/lib/kiln", "var/lib/kiln/images"] {
        assert!(is_dir(root.path(), dir), "{dir} was not made");
    }
}

fn is_dir(root: &Path, path: &str) -> bool {
    root.join(path).is_dir()
}
