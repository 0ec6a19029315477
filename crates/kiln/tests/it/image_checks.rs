//! `kiln image` with images that nobody built: what they can do to it.

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use rustix::process::Signal;

use crate::harness::Kiln;

/// An image of which only `functions` is of any use.
fn image(images: &Path, functions: &str) {
    let dir = images.join("test/made");
    fs::create_dir_all(dir.join("amd64")).expect("a directory");
    fs::write(dir.join("functions"), functions).expect("functions");
    fs::write(dir.join("amd64/root.img.qcow2"), "no disk").expect("a disk");
}

#[test]
fn an_interrupted_check_leaves_nothing() {
    let images = tempfile::tempdir().expect("a directory");
    let functions = "default_arch=amd64\nboot() { _boot; }\n\
                     sanity_check() { echo checking; sleep 54321; }\n";
    image(images.path(), functions);
    let kiln = Kiln::with_images(images.path());
    for command in [
        &["image", "check", "test/made"][..],
        &["image", "control", "test/made", "sanity-check"],
    ] {
        let running = kiln.kiln(command.iter().copied()).start();
        running.wait_for_stdout("checking");
        running.signal(Signal::TERM);
        running.expect_status(130);
        let scratch = kiln.home().join("state/kiln/scratch");
        let left: Vec<_> = fs::read_dir(scratch).into_iter().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn the_files_of_a_killed_check_go_with_the_next() {
    let images = tempfile::tempdir().expect("a directory");
    let functions = "default_arch=amd64\nboot() { _boot; }\n\
                     sanity_check() { echo checking; [ ! -e \"$wd/stay\" ] || sleep 54321; }\n";
    image(images.path(), functions);
    let stay = images.path().join("test/made/stay");
    fs::write(&stay, "").expect("a file");
    let kiln = Kiln::with_images(images.path());
    let check = || kiln.kiln(["image", "check", "test/made"]);
    let running = check().start();
    running.wait_for_stdout("checking");
    running.signal(Signal::KILL);
    running.end();
    let scratch = kiln.home().join("state/kiln/scratch");
    let left = || fs::read_dir(&scratch).into_iter().flatten().count();
    assert_eq!(left(), 1);
    fs::remove_file(stay).expect("a file");
    check().expect_success();
    assert_eq!(left(), 0);
}

#[test]
fn links_in_a_circle_keep_no_list_from_its_end() {
    let images = tempfile::tempdir().expect("a directory");
    image(images.path(), "boot() { _boot; }\n");
    let dir = images.path().join("test/made");
    for name in ["a", "b"] {
        symlink(".", dir.join(name)).expect("a link");
    }
    symlink("/", dir.join("root")).expect("a link");
    Kiln::with_images(images.path())
        .kiln(["image", "list"])
        .limit(Duration::from_secs(20))
        .expect_success()
        .expect_stdout("test/made");
}
