//! Guests that are kept with their packages, for the next job that wants the
//! same.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use crate::harness::{Ended, Kiln};

const MANIFEST: &str = r#"
packages:
- jq
secrets: [token]
environment: {MINE: "%s"}
tasks:
- use: |
    { set +x; } 2>/dev/null
    echo "{\"packages\":\"$MINE\"}" | jq -r .packages
    cat ~/token-*
    ls ~ /home
"#;

const KEPT: &str = "[kiln] kept for the next job, in ";
const FROM: &str = "[kiln] packages from a template of ";

/// A cache of its own, with the image's template in it, and what is run with it.
struct Cache {
    kiln: Kiln,
    dir: TempDir,
}

impl Cache {
    fn new() -> Self {
        Self {
            kiln: Kiln::new(),
            dir: tempfile::tempdir().expect("a directory"),
        }
    }

    /// Runs the manifest with a secret and a variable of this name.
    fn run(&self, mine: &str, options: &[&str]) -> Ended {
        self.kiln.file("secret", format!("secret of {mine}\n"));
        let secret = format!("token=file:secret:~/token-{mine}");
        let ended = self
            .kiln
            .run(&MANIFEST.replace("%s", mine))
            .args(["--secret", &secret])
            .args(options)
            .env("XDG_CACHE_HOME", self.dir.path())
            .expect_success();
        ended
            .expect_line("use", mine)
            .expect_line("use", &format!("secret of {mine}"))
            .expect_line("use", &format!("token-{mine}"));
        ended
    }

    /// The directories of kept guests.
    fn kept(&self) -> Vec<PathBuf> {
        let templates = self.dir.path().join("kiln/templates");
        let entries = fs::read_dir(templates).expect("templates");
        let dirs = entries.map(|entry| entry.expect("an entry").path());
        let about = |dir: &PathBuf| fs::read_to_string(dir.join("about.json"));
        dirs.filter(|dir| about(dir).is_ok_and(|about| about.contains("\"host_boot\"")))
            .collect()
    }
}

#[test]
fn packages_are_installed_once_and_nothing_else_of_a_job_is_kept() {
    let cache = Cache::new();
    let first = cache.run("first", &[]);
    first.expect_log("Setting up jq").expect_log(KEPT);
    let second = cache.run("second", &[]);
    second.expect_log(FROM);
    assert!(!second.log().contains("Setting up jq"), "{second}");
    assert!(!second.task_log("use").contains("first"), "{second}");
    // Not the secret, anywhere in what was kept.
    for dir in cache.kept() {
        let mut all = Vec::new();
        for file in ["memory", "state", "machine/disk.qcow2"] {
            all.extend(fs::read(dir.join(file)).expect("a file"));
        }
        let has = |text: &[u8]| all.windows(text.len()).any(|window| window == text);
        assert!(!has(b"secret of first"));
        // As it would be found.
        assert!(has(b"/usr/share/doc/jq"), "the package is not found either");
    }
    // Asked to, it is done again, and takes the other's place.
    let before = fs::read_to_string(cache.kept()[0].join("about.json")).expect("a template");
    cache.run("third", &["--fresh"]).expect_log(KEPT);
    let kept = cache.kept();
    assert_eq!(kept.len(), 1);
    let after = fs::read_to_string(kept[0].join("about.json")).expect("a template");
    assert_ne!(before, after);
    // And not at all.
    let none = cache.run("fourth", &["--derived-ttl", "0"]);
    assert!(
        !none.log().contains(KEPT) && !none.log().contains(FROM),
        "{none}"
    );
}

#[test]
fn what_is_too_old_or_was_changed_is_not_used() {
    let cache = Cache::new();
    cache.run("first", &[]).expect_log(KEPT);
    let of = |dir: &PathBuf| dir.join("about.json");
    let dir = cache.kept().pop().expect("a kept guest");
    // Two days ago.
    let about = fs::read_to_string(of(&dir)).expect("a template");
    let (head, tail) = about.split_once("\"made\":").expect("a time");
    let digits = tail.find(|c: char| !c.is_ascii_digit()).expect("an end");
    let (made, rest) = tail.split_at(digits);
    let made: u64 = made.parse().expect("seconds");
    let old = format!("{head}\"made\":{}{rest}", made - 2 * 86_400);
    fs::write(of(&dir), old).expect("a file");
    cache.run("old", &["--derived-ttl", "3d"]).expect_log(FROM);
    cache.run("too-old", &[]).expect_log(KEPT);
    // Cut short.
    let dir = cache.kept().pop().expect("a kept guest");
    let memory = fs::File::options().write(true).open(dir.join("memory"));
    memory.expect("a file").set_len(1 << 20).expect("shorter");
    cache.run("cut", &[]).expect_log(KEPT);
}
