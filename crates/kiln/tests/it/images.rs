//! Images: those that are there, upstream's `control`, and images that were
//! written for builds.sr.ht.

use std::{
    fs,
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    harness::{IMAGE, Kiln, images},
    servers::{Booted, Server, sh},
};

#[test]
fn images_are_listed_with_their_age_and_digest() {
    let kiln = Kiln::new();
    let listed = kiln.kiln(["image", "list", "--json"]).expect_success();
    let rows = listed.events();
    let row = rows
        .iter()
        .find(|row| row["name"] == IMAGE)
        .unwrap_or_else(|| panic!("{listed}"));
    assert_eq!(row["arch"], "amd64");
    assert!(
        row["age_seconds"].is_u64() && row["size"].as_u64() > Some(1 << 20),
        "{row}"
    );
    let digest = row["digest"].as_str().expect("a digest");
    assert!(
        digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{digest}"
    );
    let table = kiln.kiln(["image", "list"]).expect_success();
    let line = table
        .stdout()
        .lines()
        .find(|line| line.starts_with(IMAGE))
        .map(str::to_owned);
    assert!(
        line.is_some_and(|line| line.contains(&digest[..12])),
        "{table}"
    );
    let none = Kiln::without_images();
    none.kiln(["image", "list"])
        .expect_success()
        .expect_stderr("no images in");
}

#[test]
fn an_image_passes_its_own_check() {
    let kiln = Kiln::new();
    kiln.kiln(["image", "check", IMAGE])
        .takes_turns(true)
        .expect_success()
        .expect_stdout("debian/bookworm (amd64): OK");
}

/// As upstream's files are: releases source `../functions`.
const FUNCTIONS: &str = r#"#!/bin/bash -eu
default_arch=x86_64
default_means=qemu
poweroff_cmd="sudo systemctl poweroff"
MEMORY=1024

boot() {
	if [ "$arch" != "x86_64" ]; then
		echo "Unsupported arch $arch"
		exit 1
	fi
	driveopts="id=root,if=none"
	_boot $(cpu_opts x86_64) -device virtio-blk-pci,drive=root \
		-kernel "$wd/$arch/vmlinuz" -initrd "$wd/$arch/initrd.img" \
		-append "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet"
}

add_repository() {
	port="$1"
	name="$2"
	src="$3"
	printf '%s %s\n' "$name" "$src" | guest_ssh -p $port build@localhost sudo tee -a /etc/our-repositories
}

install() (
	port="$1"
	shift 1
	guest_ssh -p $port -n build@localhost sudo touch /etc/our-packages
	printf '#!/bin/sh\necho "$@" >>/tmp/our-git\nexec git "$@"\n' |
		guest_ssh -p $port build@localhost sudo install -m 755 /dev/stdin /usr/local/bin/our-git
	echo "$@" | ssh -p "$port" -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no \
		build@localhost sudo tee /etc/our-packages
)
"#;

const CONFIG: &str = r#"homedir: /var/tmp
git_variant: our-git
preamble: |
  #!/usr/bin/env bash
  . /var/tmp/.buildenv
  set -e
  echo our own preamble
"#;

/// An images directory on the same file system as the tests' images, where
/// that can be had, so that the disk need not be copied.
fn upstream_images() -> TempDir {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let arch = dir.path().join("ours/1/x86_64");
    fs::create_dir_all(&arch).expect("a directory");
    let from = images().join(IMAGE).join("amd64");
    for file in ["root.img.qcow2", "vmlinuz", "initrd.img"] {
        link_or_copy(&from.join(file), &arch.join(file));
    }
    fs::write(dir.path().join("ours/functions"), FUNCTIONS).expect("a file");
    fs::write(dir.path().join("ours/config.yml"), CONFIG).expect("a file");
    fs::write(dir.path().join("ours/1/functions"), ". ../functions\n").expect("a file");
    sh(dir.path(), "ln -s 1 ours/latest");
    dir
}

fn link_or_copy(from: &Path, to: &Path) {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }
}

#[test]
fn an_image_written_for_builds_sr_ht_works_without_a_change() {
    let images = upstream_images();
    let kiln = Kiln::with_images(images.path());
    let server = Server::http(&kiln.dir());
    sh(
        &kiln.dir(),
        "git init -q project; cd project; git commit -q --allow-empty -m x; cd ..; git clone -q --bare project project.git",
    );
    let ended = kiln
        .run(&format!(
            r#"
image: ours/latest
arch: amd64
repositories:
  theirs: https://packages.example/~x with words
packages: [one, two]
sources:
- http://{}/project.git
tasks:
- look: |
    cat /etc/our-repositories /etc/our-packages
    echo "home=$PWD memory=$(awk '/MemTotal/ {{ print ($2 > 1048576 ? "more" : "1G") }}' /proc/meminfo)"
    ls -d /var/tmp/project /var/tmp/.tasks/look
    grep -c clone /tmp/our-git
"#,
            server.in_guest()
        ))
        .args(server.allow())
        .expect_success();
    for line in [
        "our own preamble",
        "theirs https://packages.example/~x with words",
        "one two",
        "home=/var/tmp memory=1G",
        "/var/tmp/project",
        "/var/tmp/.tasks/look",
        "1",
    ] {
        ended.expect_line("look", line);
    }
    let wrong = kiln
        .run("image: ours/1\ntasks: [{a: b}]\n")
        .args(["--arch", "aarch64"]);
    wrong
        .expect_status(3)
        .expect_stderr("image `ours/1` has no disk for aarch64; there is x86_64");
    let listed = kiln.kiln(["image", "list", "--json"]).expect_success();
    let links: Vec<Value> = listed
        .events()
        .into_iter()
        .map(|row| row["link"].clone())
        .collect();
    assert_eq!(links, [Value::Null, "1".into()]);
}

#[test]
fn image_control_drives_a_guest_as_upstreams_does() {
    let images = upstream_images();
    let kiln = Kiln::with_images(images.path());
    let guest = Booted::new(&kiln, "ours/1");
    let control = |words: &[&str]| kiln.kiln(["image", "control", "ours/1"]).args(words);
    let port = guest.port().to_string();
    let there = control(&["ssh", &port, "cat; echo in $(hostname)"]).stdin("standard input ");
    assert_eq!(there.expect_success().stdout(), "standard input in build\n");
    control(&["ssh", &port, "exit 42"]).expect_status(42);
    control(&["install", &port, "one", "two"]).expect_success();
    let source = "http://archive.example/apt stable main";
    control(&["add-repo", &port, "theirs", source]).expect_success();
    let plain = guest.ssh("cat /etc/our-packages /etc/our-repositories");
    assert_eq!(plain, format!("one two\ntheirs {source}\n"));
    let second = control(&["boot", "amd64", &port]).expect_status(2);
    second.expect_stderr("a guest has this port already");
    control(&["cleanup", &port]).expect_success();
    let since = Instant::now();
    while TcpStream::connect(("127.0.0.1", guest.port())).is_ok() {
        assert!(
            since.elapsed() < Duration::from_secs(20),
            "the guest still answers"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let gone = control(&["ssh", &port, "true"]).expect_status(2);
    gone.expect_stderr("no guest has the port");
}
