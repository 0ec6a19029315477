//! `--here`: the working copy instead of a clone.

use crate::{harness::Kiln, servers::sh};

#[test]
fn the_working_copy_comes_as_it_is_but_for_what_git_ignores() {
    let kiln = Kiln::new();
    sh(
        &kiln.dir(),
        r"
        git init -q -b main
        git remote add origin git@git.example.org:~me/thing
        printf '*.o\n' >.gitignore
        mkdir dir
        echo committed | tee same changed deleted dir/moved
        git add .
        git commit -q -m base
        echo changed >changed
        rm deleted
        git mv dir/moved dir/renamed
        echo staged >staged
        git add staged
        printf '#!/bin/sh\necho runs\n' >'an untracked script'
        chmod 755 'an untracked script'
        ln -s same link
        echo object >ignored.o
        ",
    );
    let ended = kiln
        .run(
            r#"
sources:
- https://git.example.org/~me/thing
tasks:
- look: |
    cd thing
    for file in same changed staged dir/renamed link; do echo "$file: $(cat "$file")"; done
    './an untracked script'
    echo "link to $(readlink link)"
    for file in deleted dir/moved ignored.o; do [ ! -e "$file" ] || echo "$file is there"; done
    git status --porcelain
    echo "log=$(git log --format=%s)"
    echo "origin=$(git remote get-url origin)"
"#,
        )
        .arg("--here")
        .expect_success();
    for line in [
        "same: committed",
        "changed: changed",
        "staged: staged",
        "dir/renamed: committed",
        "link: committed",
        "runs",
        "link to same",
        " M changed",
        " D deleted",
        "log=base",
        "origin=https://git.example.org/~me/thing",
    ] {
        ended.expect_line("look", line);
    }
    let log = ended.task_log("look");
    assert!(
        !log.lines().any(|line| line.ends_with(" is there")),
        "{ended}"
    );
    assert_eq!(
        sh(&kiln.dir(), "git log --format=%s; cat deleted 2>&1 || true")
            .lines()
            .next(),
        Some("base")
    );
}

#[test]
fn a_working_copy_that_is_no_source_of_the_manifest_is_refused_before_a_guest_starts() {
    let kiln = Kiln::dummy();
    sh(
        &kiln.dir(),
        "git init -q; git commit -q --allow-empty -m base",
    );
    kiln.run("sources: ['https://git.example.org/other']\ntasks: [{a: b}]\n")
        .arg("--here")
        .expect_status(2)
        .expect_stderr("--here: no source of the manifest is this repository")
        .expect_stderr("https://git.example.org/other");
}
