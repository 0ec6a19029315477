//! `kiln doctor` on this host as it is, and with something taken from it.

use std::{fs, path::Path};

use crate::harness::{Ended, Invocation, Kiln, images};

/// One that asks for the accelerator anew, and leaves the other tests' answer.
fn doctor(kiln: &Kiln) -> Invocation<'_> {
    kiln.kiln(["doctor"])
        .env("XDG_CACHE_HOME", kiln.home().join("cache"))
}

/// The line that has this text.
#[track_caller]
fn line(ended: &Ended, text: &str) -> String {
    let stdout = ended.stdout();
    let found = stdout.lines().find(|line| line.contains(text));
    found
        .unwrap_or_else(|| panic!("no line has `{text}`: {ended}"))
        .to_owned()
}

fn sees_kvm() -> bool {
    Path::new("/dev/kvm").exists()
}

#[test]
fn a_host_that_runs_guests_is_well() {
    let kiln = Kiln::with_images(&images());
    let ended = doctor(&kiln).expect_success();
    for what in [
        "processor: ",
        "namespaces: made",
        "network: nft loaded",
        "QEMU: qemu-system-",
        "image debian/bookworm",
    ] {
        assert!(line(&ended, what).starts_with("OK  "), "{what}: {ended}");
    }
    for line in ended.stdout().lines() {
        assert!(
            ["OK  ", "--  "].iter().any(|mark| line.starts_with(mark)),
            "`{line}` of {ended}"
        );
    }
    assert_eq!(fs::read_dir(kiln.dir()).expect("the directory").count(), 0);
}

#[test]
fn an_accelerator_that_is_refused_is_a_warning_with_the_reason() {
    let kiln = Kiln::with_images(&images());
    let ended = doctor(&kiln).expect_success();
    let line = line(&ended, "accelerator: ");
    if line.starts_with("OK") {
        assert!(
            sees_kvm() && line.contains("a kernel came up under it"),
            "{line}"
        );
        return;
    }
    assert!(
        line.starts_with("--  accelerator: guests are emulated, some 10 to 20 times slower"),
        "{line}"
    );
    let (_, reason) = line.split_once(" — ").expect("a reason");
    assert!(
        reason.contains("KVM") || reason.contains("/dev/kvm"),
        "{line}"
    );
    assert!(sees_kvm() || reason.contains("has no /dev/kvm"), "{line}");
}

#[test]
fn without_an_image_it_says_how_to_build_one() {
    let kiln = Kiln::without_images();
    let empty = kiln.home().join("empty");
    fs::create_dir(&empty).expect("a directory");
    let ended = doctor(&kiln).env("KILN_IMAGES", &empty).expect_status(1);
    let line = line(&ended, "images: none in ");
    assert!(
        line.starts_with("!!  ") && line.contains(" — kiln image build"),
        "{line}"
    );
    assert!(line.ends_with(" debian/bookworm"), "{line}");
    ended.expect_stderr("`kiln run` does not work here");
}

#[test]
fn a_disk_that_is_none_is_in_the_way() {
    let kiln = Kiln::without_images();
    let image = kiln.home().join("images/debian/odd");
    fs::create_dir_all(image.join("amd64")).expect("a directory");
    fs::write(image.join("functions"), "").expect("functions");
    fs::write(image.join("amd64/root.img.qcow2"), "no disk").expect("a disk");
    let ended = doctor(&kiln)
        .env("KILN_IMAGES", kiln.home().join("images"))
        .expect_status(1);
    assert!(
        line(&ended, "image debian/odd (amd64)").starts_with("!!  "),
        "{ended}"
    );
}

#[test]
fn a_host_without_user_namespaces_is_told_which_setting_and_the_remedy() {
    let kiln = Kiln::with_images(&images());
    let script = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"";
    let ended = doctor(&kiln)
        .through([
            "unshare",
            "--user",
            "--map-root-user",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .expect_success();
    let line = line(&ended, "namespaces: ");
    assert!(
        line.starts_with(
            "--  namespaces: this host forbids user namespaces (user.max_user_namespaces is 0)"
        ),
        "{line}"
    );
    assert!(
        line.contains("no network — as root: sysctl -w user.max_user_namespaces="),
        "{line}"
    );
}

#[test]
fn an_uplink_that_fails_is_in_the_way() {
    let kiln = Kiln::with_images(&images());
    // A device that opens and makes no network.
    let script = "mount --bind /dev/null /dev/net/tun && exec \"$@\"";
    let ended = doctor(&kiln)
        .through([
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .expect_status(1);
    let line = line(&ended, "network: ");
    assert!(line.starts_with("!!  network: slirp4netns"), "{line}");
    assert!(line.contains("`kiln run --no-network`"), "{line}");
}

#[test]
fn a_tool_that_hangs_does_not_hang_the_doctor() {
    let kiln = Kiln::with_images(&images());
    let slow = kiln.file("nft", "#!/bin/sh\nexec sleep 300\n");
    let nft = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let nft = nft.expect("nft is installed");
    let script = format!(
        "chmod 755 {slow} && mount --bind {slow} {nft} && exec \"$@\"",
        slow = slow.display()
    );
    let ended = doctor(&kiln)
        .through([
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            &script,
            "sh",
        ])
        .expect_status(1);
    assert!(ended.took.as_secs() < 40, "{ended}");
    assert!(
        line(&ended, "no answer in time").starts_with("!!  "),
        "{ended}"
    );
}
