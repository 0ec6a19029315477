//! Clones, and the working copy in place of one.

use std::{fs, path::Path, process::Command};

use kiln_core::job::JobStatus;
use kiln_vm::dummy::Call;
use kiln_worker::{Overlay, Step};

use crate::harness::Build;

/// Runs the host's git in a directory.
fn git(dir: &Path, words: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(dir)
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
        .args([
            "-c",
            "protocol.file.allow=always",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(words)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {words:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn commit(dir: &Path, file: &str, text: &str) -> String {
    fs::write(dir.join(file), text).unwrap();
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-qm", text]);
    git(dir, &["rev-parse", "HEAD"])
}

fn repository(parent: &Path, name: &str) -> std::path::PathBuf {
    let dir = parent.join(name);
    fs::create_dir(&dir).unwrap();
    git(&dir, &["init", "-q"]);
    dir
}

/// Lets the guest's git clone submodules from this host's files.
fn trust_files(build: &Build) {
    let config = "[protocol \"file\"]\n\tallow = always\n[safe]\n\tdirectory = *\n";
    fs::write(build.home().join(".gitconfig"), config).unwrap();
}

#[tokio::test]
async fn git_is_cloned_with_reference_directory_and_submodules() {
    let host = tempfile::tempdir().unwrap();
    let inner = repository(host.path(), "inner");
    commit(&inner, "deep", "deep");
    let thing = repository(host.path(), "thing.git");
    git(
        &thing,
        &[
            "submodule",
            "--quiet",
            "add",
            inner.to_str().unwrap(),
            "sub",
        ],
    );
    let old = commit(&thing, "a", "old");
    git(&thing, &["tag", "v1"]);
    git(&thing, &["checkout", "-q", "-b", "side"]);
    let side = commit(&thing, "a", "side");
    git(&thing, &["checkout", "-q", "main"]);
    let new = commit(&thing, "a", "new");
    let url = format!("file://{}", thing.display());
    let build = Build::of(&format!(
        "sources: [\"{url}\", \"elsewhere/x::{url}#v1\", \"b::{url}#side\"]\ntasks:\n- build: |\n    \
         [ $(cat thing/a) = new ]; [ $(cat elsewhere/x/a) = old ]; cat thing/sub/deep\n"
    ));
    trust_files(&build);
    let ran = build.run().await;
    assert_eq!(ran.outcome.status, JobStatus::Success, "{}", ran.all_text());
    let events = ran.json();
    let sources: Vec<_> = events.iter().filter(|e| e["event"] == "source").collect();
    assert_eq!(sources[0]["commit"], new);
    assert_eq!(sources[1]["commit"], old);
    assert_eq!(sources[1]["directory"], "elsewhere/x");
    assert_eq!(sources[2]["commit"], side);
}

#[tokio::test]
async fn a_reference_that_is_not_there_is_named() {
    let host = tempfile::tempdir().unwrap();
    let thing = repository(host.path(), "thing");
    commit(&thing, "a", "a");
    let source = format!("file://{}#nowhere", thing.display());
    let build = Build::of(&format!("sources: [\"{source}\"]\ntasks:\n- build: echo\n"));
    trust_files(&build);
    let ran = build.run().await;
    assert_eq!(ran.reason(), "sources: thing has no nowhere to check out");
}

#[tokio::test]
async fn mercurial_is_cloned_by_hg() {
    let hg = r#"{ printf '<%s>' "$@"; echo; } >>~/hg
[ "$3" = clone ] && mkdir thing
[ "$1" = log ] && printf '%040d\n' 7
true"#;
    let source = "hg+https://example.org/thing#stable";
    let ran = Build::of(&format!("sources: [\"{source}\"]\ntasks:\n- build: echo\n"))
        .with_word("hg", hg)
        .run()
        .await;
    assert_eq!(ran.outcome.status, JobStatus::Success, "{}", ran.all_text());
    let words = fs::read_to_string(ran.build.home().join("hg")).unwrap();
    let home = ran.build.home().canonicalize().unwrap();
    let directory = home.join("thing");
    let clone = format!("<--><https://example.org/thing><{}>\n", directory.display());
    assert!(words.contains(&clone), "{words}");
    assert!(
        words.contains("<update><--quiet><--rev=stable>\n"),
        "{words}"
    );
    let told = ran
        .json()
        .into_iter()
        .find(|e| e["event"] == "source")
        .unwrap();
    assert_eq!(told["commit"], "0000000000000000000000000000000000000007");
}

#[tokio::test]
async fn hostile_words_reach_the_guest_as_single_words() {
    let git = r#"printf '<%s>' "$@" >>~/git; [ "$1" = clone ] && mkdir -p "$4"; true"#;
    let url = "https://example.org/$(touch ~/pwned);`id`'\\\"& x";
    let mut build = Build::of("tasks:\n- build: echo\n").with_word("git", git);
    let source = format!("a '$(touch pwned)::{url}#r e;f");
    build.job.manifest.sources = Some(vec![kiln_core::manifest::Source::parse(&source).unwrap()]);
    let packages = vec!["--purge".to_owned(), "$(touch ~/pwned) x".to_owned()];
    build.job.manifest.packages = Some(packages.clone());
    let ran = build.run().await;
    assert_eq!(ran.outcome.status, JobStatus::Success, "{}", ran.all_text());
    let home = ran.build.home().canonicalize().unwrap();
    let words = fs::read_to_string(home.join("git")).unwrap();
    let directory = home.join("a '$(touch pwned)");
    let clone = format!("<clone><--><{url}><{}>", directory.display());
    assert!(words.starts_with(&clone), "{words}");
    assert!(words.contains("<checkout><-q><r e;f><-->"), "{words}");
    assert!(ran.calls.contains(&Call::Install(packages)));
    assert!(!home.join("pwned").exists() && !directory.join("pwned").exists());
}

#[tokio::test]
async fn a_working_copy_takes_the_place_of_a_clone() {
    let host = tempfile::tempdir().unwrap();
    let inner = repository(host.path(), "inner");
    commit(&inner, "deep", "deep");
    let thing = repository(host.path(), "thing");
    git(
        &thing,
        &[
            "submodule",
            "--quiet",
            "add",
            inner.to_str().unwrap(),
            "sub",
        ],
    );
    fs::create_dir(thing.join("gone")).unwrap();
    fs::write(thing.join("gone/x"), "x").unwrap();
    fs::write(thing.join("it's"), "x").unwrap();
    let head = commit(&thing, "a", "committed");
    let bundle = host.path().join("bundle");
    let bundle_text = bundle.to_str().unwrap();
    git(&thing, &["bundle", "create", "-q", bundle_text, "HEAD"]);
    fs::write(thing.join("a"), "uncommitted").unwrap();
    fs::write(thing.join("gone-file"), "a file now").unwrap();
    let changes = host.path().join("changes.tar");
    let tar = Command::new("tar")
        .args([
            "-C",
            thing.to_str().unwrap(),
            "-cf",
            changes.to_str().unwrap(),
        ])
        .args(["a", "gone-file"])
        .status();
    assert!(tar.unwrap().success());
    let mut build = Build::of(
        "sources: [\"https://example.org/thing#other\"]\ntasks:\n- build: |\n    cd thing\n    \
         [ $(cat a) = uncommitted ]; [ ! -e gone/x ]; [ ! -e it\\'s ]; cat gone-file sub/deep\n    \
         [ $(git remote get-url origin) = https://example.org/thing ]\n",
    );
    trust_files(&build);
    build.job.overlays.push(Overlay {
        source: 0,
        bundle,
        changes: Some(changes),
        deleted: vec!["gone/x".into(), "it's".into()],
    });
    let ran = build.run().await;
    assert_eq!(ran.outcome.status, JobStatus::Success, "{}", ran.all_text());
    let told = ran
        .json()
        .into_iter()
        .find(|e| e["event"] == "source")
        .unwrap();
    assert_eq!(told["commit"], head);
}

#[tokio::test]
async fn a_working_copy_cannot_delete_outside_itself_or_be_missing() {
    let mut build = Build::of("sources: [https://example.org/thing]\ntasks:\n- build: echo\n")
        .with_word("git", "mkdir thing 2>/dev/null; true");
    let bundle = build.folder.path().join("bundle");
    build.job.overlays.push(Overlay {
        source: 0,
        bundle: bundle.clone(),
        changes: None,
        deleted: vec!["../.buildenv".into()],
    });
    let missing = build.run().await;
    assert_eq!(
        missing.reason(),
        "sources: the host could not read the working copy"
    );
    let mut build = missing.build;
    build.job.guest.dir = build.folder.path().join("again");
    fs::create_dir(&build.job.guest.dir).unwrap();
    fs::write(&bundle, "").unwrap();
    let ran = build.run().await;
    assert_eq!(
        ran.reason(),
        "sources: a deleted path of the working copy leads out of it"
    );
    let step = Step::Sources;
    assert_eq!(ran.outcome.cause, kiln_worker::Cause::StepFailed { step });
}
