//! Images that can't be used: their disks and their `functions`.

use std::{fs, time::Duration};

use super::support::{
    Images, all_gone, eventually, manifest, processes, scratch_is_gone, tells_nothing_of_the_host,
};
use crate::harness::{Ended, Kiln};

/// Nothing here comes as far as booting.
const AT_ONCE: Duration = Duration::from_secs(15);

#[track_caller]
fn is_refused(images: &Images, name: &str, why: &str) -> Ended {
    let kiln = Kiln::with_images(images.path());
    let run = kiln
        .run(&manifest(name))
        .args(["--no-network"])
        .takes_turns(false);
    let ended = run.limit(AT_ONCE).expect_status(3);
    ended.expect_stderr(why);
    ended
}

/// Refused when the guest was to start: the owner's log says little.
#[track_caller]
fn is_refused_at_the_start(images: &Images, name: &str, why: &str) {
    let ended = is_refused(images, name, why);
    ended.expect_log("start: the image of this job can't be used on this host");
    tells_nothing_of_the_host(&ended, images.path());
    scratch_is_gone(ended.folder());
}

#[test]
fn a_disk_that_is_no_whole_qcow2_of_its_own_is_refused() {
    let images = Images::new();
    images.with_made_disk("whole", &[], &["64M"]);
    let whole = fs::read(images.disk("whole")).expect("a disk");
    let mut damaged = whole.clone();
    // A cluster of 2^99 bytes.
    damaged[23] = 99;
    let data = images.path().join("data");
    let data = format!("data_file={},data_file_raw=on", data.display());
    images
        .with_disk("text", b"no disk at all\n")
        .with_disk("empty", b"")
        .with_disk("header", &whole[..112])
        .with_disk("damaged", &damaged)
        .with_made_disk("huge", &[], &["3T"])
        .with_made_disk("backing", &["-b", "/etc/passwd", "-F", "raw"], &[])
        .with_made_disk("data", &["-o", &data], &["64M"])
        .with_disk("directory", b"");
    fs::remove_file(images.disk("directory")).expect("the disk");
    fs::create_dir(images.disk("directory")).expect("a directory");
    for (name, why) in [
        ("text", "is no qcow2 file; convert it"),
        ("empty", "is no qcow2 file; convert it"),
        ("directory", "is no qcow2 file; convert it"),
        ("header", "is cut short"),
        ("damaged", "the image's disk is damaged:"),
        ("huge", "the limit is 2 TiB"),
        ("backing", "refers to another file (a backing file)"),
        ("data", "refers to another file (an external data file)"),
    ] {
        is_refused_at_the_start(&images, name, why);
    }
}

#[test]
fn an_image_without_a_disk_or_functions_is_answered_with_what_there_is() {
    let images = Images::new();
    images
        .with_words("whole", "")
        .with_words("diskless", "")
        .with_words("mute", "");
    fs::remove_file(images.disk("diskless")).expect("the disk");
    fs::remove_file(images.dir("mute").join("functions")).expect("functions");
    is_refused(
        &images,
        "diskless",
        "image `test/diskless` has no disk for amd64",
    );
    is_refused(&images, "mute", "no image `test/mute`").expect_stderr("test/whole");
    is_refused(&images, "unknown", "no image `test/unknown`").expect_stderr("test/whole");
}

#[test]
fn functions_that_break_their_contract_end_the_run_with_3() {
    let images = Images::new();
    images
        .with_functions("empty", "")
        .with_functions("silent", "boot() { true; }\n")
        .with_functions("early", "exit 0\n");
    for name in ["empty", "silent", "early"] {
        is_refused_at_the_start(&images, name, "without calling `_boot`");
    }
    images
        .with_functions("failing", "echo no way >&2; exit 7\n")
        .with_functions("syntax", "boot() { (( ; fi\n")
        .with_functions("suicide", "kill -9 $$\n")
        .with_functions("flood", "yes >&3\n")
        .with_functions("number", "MEMORY=lots\nboot() { _boot; }\n");
    for (name, why) in [
        ("failing", "`functions` ended with 7:\nno way"),
        ("syntax", "`functions` ended with 2:"),
        ("suicide", "`functions` ended with 137"),
        ("flood", "`functions` reports more than 65536 bytes"),
        (
            "number",
            "`functions` sets MEMORY to `lots`, which is no number",
        ),
    ] {
        is_refused(&images, name, why);
    }
    images.with_words("config", "");
    let pipe = images.dir("config").join("config.yml");
    let mode = rustix::fs::Mode::from_bits_truncate(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a pipe");
    is_refused(&images, "config", "config.yml: is no file");
}

#[test]
fn functions_that_never_end_are_ended_at_their_deadline() {
    let images = Images::new();
    images
        .with_functions("loop", "while :; do :; done\n")
        .with_functions("flood", "yes >&2\n")
        .with_functions("sleep", "boot() { sleep 1000; }\n");
    let kilns: Vec<Kiln> = (0..3).map(|_| Kiln::with_images(images.path())).collect();
    let started = kilns
        .iter()
        .zip(["loop", "flood", "sleep"])
        .map(|(kiln, name)| {
            kiln.run(&manifest(name))
                .takes_turns(false)
                .limit(Duration::from_secs(50))
                .start()
        });
    for running in started.collect::<Vec<_>>() {
        let ended = running.expect_status(3);
        ended.expect_stderr("`functions` did not end within 20s; does it loop?");
    }
}

#[test]
fn functions_are_given_no_part_of_the_host_by_qemus_options() {
    let images = Images::new();
    for (number, (words, why)) in [
        ("-chardev socket,path=/tmp/x,id=a", "option `-chardev`"),
        ("-monitor stdio", "option `-monitor`"),
        ("-fw_cfg name=opt/x,file=/etc/passwd", "option `-fw_cfg`"),
        ("-drive file=/etc/passwd", "asks for a -drive"),
        ("-kernel ../../../../etc/passwd", "outside the image"),
        ("-initrd /etc/passwd", "outside the image"),
        ("-device vfio-pci,host=1", "the device `vfio-pci`"),
        (
            "-device virtio-net-pci,romfile=/etc/passwd",
            "romfile=/etc/passwd`, which kiln does not give",
        ),
        (
            "-smbios type=11,path=/etc/passwd",
            "which kiln does not give to images",
        ),
        (
            "-global virtio-rng-pci.romfile=/etc/passwd",
            "which kiln does not give to images",
        ),
        (
            "-object memory-backend-file,mem-path=/x,id=a,size=1M",
            "the object `memory-backend-file",
        ),
        ("-append", "no value"),
        ("-m 4294967295G", "no size"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("words{number}");
        images.with_words(&name, words);
        is_refused_at_the_start(&images, &name, why);
    }
    images
        .with_functions("shell", "qemu=sh\nboot() { _boot; }\n")
        .with_functions(
            "disk",
            "driveopts=if=virtio,file=/etc/passwd\nboot() { _boot; }\n",
        );
    is_refused_at_the_start(&images, "shell", "sets qemu to `sh`, which is no QEMU");
    is_refused_at_the_start(&images, "disk", "has `file=/etc/passwd`");
}

#[test]
fn a_qemu_that_ends_at_once_tells_the_operator_why_and_the_owner_nothing() {
    let images = Images::new();
    images
        .with_words("machine", "-M nosuch")
        .with_functions("missing", "qemu=qemu-system-nosuch\nboot() { _boot; }\n");
    for (name, why) in [
        ("machine", "unsupported machine type"),
        ("missing", "it is not installed"),
    ] {
        let ended = is_refused(&images, name, why);
        ended.expect_log("start: the host could not start a guest");
        tells_nothing_of_the_host(&ended, images.path());
        scratch_is_gone(ended.folder());
    }
}

#[test]
fn what_functions_leave_in_the_background_ends_with_them() {
    // No other process of this host sleeps just as long.
    let seconds = format!("{}.25", 70_000 + std::process::id());
    let images = Images::new();
    let spawn = format!("setsid sleep {seconds} >/dev/null 2>&1 </dev/null & sleep {seconds} &\n");
    images.with_functions("busy", &format!("{spawn}boot() {{ sleep 1; exit 1; }}\n"));
    let kiln = Kiln::with_images(images.path());
    let running = kiln.run(&manifest("busy")).takes_turns(false).start();
    let left = eventually("its background", AT_ONCE, || {
        Some(processes(&seconds)).filter(|left| left.len() >= 2)
    });
    running
        .expect_status(3)
        .expect_stderr("without calling `_boot`");
    all_gone(&left);
    assert_eq!(processes(&seconds), []);
}
