//! kiln's helper in a guest, which is the way into those that start from a
//! template: a job must not be able to tell it from a login.

use crate::harness::Kiln;

/// All that a command has of its login, its input and its end.
const LOOK: &str = r#"
environment:
  MINE: a value
tasks:
- look: |
    { set +x; } 2>/dev/null
    # Each shell counts itself.
    env | grep -v -e ^JOB_URL= -e ^SSH_ -e ^SHLVL= -e ^OLDPWD= | sort
    id; umask; pwd; tty || :; ulimit -a; ulimit -Ha
    ls -ln /proc/self/fd | sed 's/.* \([0-9]*\) -> \(.*\)/\1 \2/; s/\[[0-9]*\]//; s,/proc/[0-9]*,,' | sort
    grep -e ^Sig -e ^Cap -e ^NoNew -e ^Seccomp /proc/self/status
    cat /proc/self/oom_score_adj
    cat; echo the input has ended
    printf 'no newline'
- errors: |
    { set +x; } 2>/dev/null
    for i in $(seq 200); do echo "out $i"; echo "err $i" >&2; done
- signal: |
    { set +x; } 2>/dev/null
    bash -c 'kill -9 $$; :' 2>&1 | sed 's,line.*,,'; echo "ended with ${PIPESTATUS[0]}"
    yes | head -n 1
- background: |
    { set +x; } 2>/dev/null
    (sleep 0.3; echo later; touch /tmp/later) &
    echo at once
- afterwards: |
    { set +x; } 2>/dev/null
    until [ -e /tmp/later ]; do sleep 0.1; done
    echo the background lived on
"#;

#[test]
fn a_task_finds_by_the_helper_what_it_finds_by_a_login() {
    let kiln = Kiln::new();
    let by_helper = kiln.run(LOOK).arg("-v").expect_success();
    let by_login = kiln.run(LOOK).args(["-v", "--cold"]).expect_success();
    by_helper.expect_stderr("template: login");
    by_login.expect_stderr("boot and login");
    for task in ["look", "errors", "signal", "background", "afterwards"] {
        assert_eq!(by_helper.task_log(task), by_login.task_log(task), "{task}");
    }
    // Made by the recipe, so there is one.
    let cache = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache/kiln/templates");
    let found = std::fs::read_dir(cache).expect("templates").any(|entry| {
        let about = entry.expect("an entry").path().join("about.json");
        std::fs::read_to_string(about).is_ok_and(|about| about.contains("\"login\":\""))
    });
    assert!(found, "no template has the helper");
}

#[test]
fn a_hundred_megabytes_and_a_command_that_reads_nothing_come_through() {
    let ended = Kiln::new()
        .run(
            r"
artifacts: [blob]
tasks:
- write: |
    { set +x; } 2>/dev/null
    head -c 100000000 /dev/zero | tr '\0' x | fold -w 99
    echo; echo all
    head -c 20000000 /dev/urandom >blob
    sha256sum blob
",
        )
        .expect_success();
    let log = ended.task_log_bytes("write");
    let lines = log.split(|&byte| byte == b'\n');
    let full = lines.filter(|line| line.len() == 99 && line.iter().all(|&byte| byte == b'x'));
    assert_eq!(full.count(), 100_000_000 / 99);
    assert_eq!(ended.artifact("blob").len(), 20_000_000);
}

#[test]
fn a_task_that_takes_all_memory_ends_alone() {
    let ended = Kiln::new()
        .run(
            r#"
tasks:
- greedy: |
    { set +x; } 2>/dev/null
    perl -e 'push @all, "x" x 1e6 while 1' || echo "ended with $?"
- next: |
    echo still here
"#,
        )
        .args(["--no-network", "--memory", "512"])
        .expect_success();
    ended
        .expect_line("greedy", "ended with 137")
        .expect_line("next", "still here");
}
