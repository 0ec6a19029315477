//! The operator's commands, and the server's life.

use std::{fs, os::unix::fs::PermissionsExt as _};

use rustix::process::Signal;

use super::{HELLO, farm};
use crate::harness::{Farm, Kiln};

#[test]
fn users_tokens_and_workers_are_made_listed_and_taken_back() {
    let farm = Farm::start();
    farm.admin(["user", "list"])
        .expect_success()
        .expect_stdout("ada@example.org")
        .expect_stdout("admin");
    farm.admin(["user", "add", "ada", "--email", "x@y"])
        .expect_status(2);
    farm.admin(["user", "add", "A b", "--email", "x@y"])
        .expect_status(2)
        .expect_stderr("can't be a user's name");
    farm.admin(["user", "add", "bob", "--email", "nobody"])
        .expect_status(2)
        .expect_stderr("is no address of mail");
    farm.admin(["token", "ada", "--grants", "JOBS"])
        .expect_status(2)
        .expect_stderr("`JOBS` is no grant");
    farm.admin(["token", "eve", "--grants", "JOBS:RO"])
        .expect_status(2)
        .expect_stderr("there is no user eve");
    let listed = farm
        .admin(["token", "list", "ada"])
        .expect_success()
        .stdout();
    assert!(
        listed.contains("JOBS:RW") && !listed.contains("kiln_u_"),
        "{listed}"
    );
    farm.client(["list"]).expect_success();
    farm.admin(["token", "revoke", "1"]).expect_success();
    farm.client(["list"]).expect_status(2);
    let token = farm.last_line([
        "token",
        "ada",
        "--grants",
        "JOBS:RW LOGS:RO PROFILE:RO",
        "--days",
        "1",
    ]);
    farm.secret("token", &token);
    farm.client(["list"]).expect_success();
    farm.admin(["user", "revoke", "ada"]).expect_success();
    farm.client(["list"]).expect_status(2);

    let token = farm.last_line(["worker", "add", "one"]);
    assert!(token.starts_with("kiln_w_"), "{token}");
    farm.admin(["worker", "add", "one"]).expect_status(2);
    farm.admin(["worker", "add", "local"])
        .expect_status(2)
        .expect_stderr("the worker inside `kiln serve`");
    farm.admin(["worker", "revoke", "local"])
        .expect_status(2)
        .expect_stderr("`kiln serve --no-worker` runs none");
    farm.admin(["worker", "pause", "one", "--reason", "new disks"])
        .expect_success();
    farm.admin(["worker", "list"])
        .expect_success()
        .expect_stdout("paused: new disks");
    farm.admin(["worker", "resume", "one"]).expect_success();
    farm.admin(["worker", "revoke", "one"]).expect_success();
    farm.admin(["worker", "revoke", "two"])
        .expect_status(2)
        .expect_stderr("there is no worker two");
}

#[test]
fn where_the_state_is_may_be_said_before_or_behind_the_words() {
    let kiln = Kiln::without_images();
    kiln.kiln([
        "admin", "user", "add", "ada", "--email", "a@b.c", "--data", "d",
    ])
    .expect_success();
    kiln.kiln(["admin", "--data", "d", "user", "list"])
        .expect_success()
        .expect_stdout("ada");
    let url = format!("sqlite://{}/d/kiln.db", kiln.dir().display());
    kiln.kiln(["admin", "user", "list", "--database", &url])
        .expect_success()
        .expect_stdout("ada");
}

#[test]
fn a_directory_without_a_farm_is_not_made_into_one_by_who_only_looks() {
    let kiln = crate::harness::Kiln::without_images();
    kiln.kiln(["admin", "user", "list", "--data", "nothing"])
        .expect_status(2)
        .expect_stderr("has no farm's database");
    assert!(!kiln.dir().join("nothing").exists());
}

#[test]
fn a_second_server_on_one_directory_is_refused_and_told_by_whom() {
    let farm = Farm::start();
    let data = farm.kiln().home().join("serve");
    let second = farm
        .kiln()
        .kiln(["serve", "--no-worker", "--listen", "127.0.0.1:0", "--data"])
        .arg(&data);
    let pid = farm.server().pid();
    second
        .expect_status(3)
        .expect_stderr(&format!("is in use by process {pid}"));
    let copy = farm.dir().join("copy");
    farm.admin(["backup"]).arg(&copy).expect_success();
    farm.admin(["restore"])
        .arg(&copy)
        .expect_status(3)
        .expect_stderr("is in use by process");
}

#[test]
fn a_backup_of_a_running_farm_brings_it_back() {
    let mut farm = farm();
    farm.submit(HELLO).arg("-f").expect_success();
    farm.admin(["backup", "copy"]).expect_success();
    farm.admin(["backup", "copy"])
        .expect_status(2)
        .expect_stderr("is there already");
    farm.submit(HELLO).arg("-f").expect_success();
    farm.server().signal(Signal::TERM);
    farm.stopped();
    farm.kiln().file("nonsense", "no database");
    farm.admin(["restore", "nonsense"]).expect_status(2);
    farm.admin(["restore", "copy"])
        .expect_success()
        .expect_stderr("what was there is");
    farm.go_on();
    let listed = farm.client(["list"]).expect_success().stdout();
    assert_eq!(listed.lines().count(), 1, "{listed}");
    farm.client(["logs", "1"])
        .expect_success()
        .expect_stdout("hi");
}

#[test]
fn what_is_missing_is_found_while_the_server_runs() {
    let farm = farm();
    farm.submit(HELLO).arg("-f").expect_success();
    farm.admin(["check"])
        .expect_success()
        .expect_stderr("of which 0 are nobody's");
    let log = farm.data_dir().join("objects/logs/0/1/log");
    fs::remove_file(log).expect("the log is there");
    farm.admin(["check"])
        .expect_status(1)
        .expect_stdout("logs/0/1/log is missing, or empty")
        .expect_stderr("1 are missing");
}

#[test]
fn a_token_that_others_can_read_starts_no_worker() {
    let farm = Farm::start();
    let token = farm.worker_token("one");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).expect("a mode");
    let worker = farm.worker_command("one", &farm.url(), &token);
    worker
        .expect_status(2)
        .expect_stderr("others may read it")
        .expect_stderr("chmod 600");
}

#[test]
fn the_first_start_says_how_to_make_the_first_user_and_the_server_ends_when_asked() {
    let kiln = Kiln::without_images();
    let server = kiln
        .kiln([
            "serve",
            "--no-worker",
            "--listen",
            "127.0.0.1:0",
            "--log-format",
            "json",
        ])
        .start();
    server.wait_for_stderr("user add NAME --email ADDRESS --admin");
    server.signal(Signal::INT);
    let ended = server.expect_status(0);
    for line in ended.stderr().lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(
            event["time"].is_string() && event["level"].is_string() && event["message"].is_string(),
            "{line}"
        );
    }
}
