//! Sources of the public kind: git and Mercurial over HTTP.

use crate::{
    harness::Kiln,
    servers::{Server, sh},
};

/// A project with a submodule, a tag, a branch and a history.
fn make_repositories(dir: &std::path::Path, server: &Server) {
    sh(
        dir,
        &format!(
            r"
            git init -q -b main lib
            (cd lib; echo lib >file; git add .; git commit -q -m lib)
            git clone -q --bare lib lib.git
            git init -q -b main project
            cd project
            echo first >file
            git add .; git commit -q -m first; git tag v1
            git checkout -q -b feature
            echo feature >file
            git commit -q -a -m feature
            git checkout -q main
            printf '[submodule \x22lib\x22]\n\tpath = vendor/lib\n\turl = http://{}/lib.git\n' >.gitmodules
            echo second >file
            git add .
            git update-index --add --cacheinfo 160000,$(git -C ../lib rev-parse HEAD),vendor/lib
            git commit -q -m second
            cd ..
            git clone -q --bare project project.git
            ",
            server.in_guest()
        ),
    );
}

#[test]
fn git_and_mercurial_sources_are_cloned_as_their_urls_say() {
    let kiln = Kiln::new();
    let served = kiln.dir().join("served");
    std::fs::create_dir(&served).expect("a directory");
    let git = Server::http(&served);
    make_repositories(&served, &git);
    sh(
        &kiln.dir(),
        "hg init thing; cd thing; echo old >file; hg add -q file; hg commit -m old; hg tag ancient;
         echo new >file; hg commit -m new",
    );
    let hg = Server::hg(&kiln.dir().join("thing"));
    let first = sh(&served, "git -C project rev-parse v1");
    let url = format!("http://{}/project.git", git.in_guest());
    let manifest = format!(
        r#"
sources:
- {url}
- on-branch::git+{url}#feature
- at-tag::{url}#v1
- deep/at-commit::{url}#{first}
- thing::hg+http://{hg}/
- old-thing::hg+http://{hg}/#ancient
tasks:
- look: |
    for there in project on-branch at-tag deep/at-commit thing old-thing project/vendor/lib; do
        echo "$there: $(cat "$there/file")"
    done
    echo "branch=$(git -C project symbolic-ref --short HEAD)"
    echo "remote=$(git -C on-branch remote get-url origin)"
    echo "clean=$(git -C project status --porcelain)"
"#,
        hg = hg.in_guest()
    );
    let ended = kiln
        .run(&manifest)
        .args(git.allow())
        .args(hg.allow())
        .arg("--json")
        .expect_success();
    for line in [
        "project: second",
        "on-branch: feature",
        "at-tag: first",
        "deep/at-commit: first",
        "thing: new",
        "old-thing: old",
        "project/vendor/lib: lib",
        "branch=main",
        &format!("remote={url}"),
        "clean=",
    ] {
        ended.expect_line("look", line);
    }
    // What it takes to run this job again: the commit of each source.
    let events = ended.events();
    let sources = events.iter().filter(|event| event["event"] == "source");
    let commits: Vec<&str> = sources
        .map(|event| event["commit"].as_str().expect("a commit"))
        .collect();
    let heads = sh(&served, "cd project; git rev-parse main feature v1 v1");
    let hg_heads = sh(
        &kiln.dir(),
        "cd thing; hg log -r tip -r ancient -T '{node}\\n'",
    );
    let expected: Vec<&str> = heads.lines().chain(hg_heads.lines()).collect();
    assert_eq!(commits, expected);
}
