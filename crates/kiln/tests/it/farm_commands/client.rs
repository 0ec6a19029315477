//! The client's commands.

use std::{fs, os::unix::fs::PermissionsExt as _};

use rustix::process::Signal;
use serde_json::Value;

use super::{HELLO, farm};
use crate::harness::Farm;

#[test]
fn a_job_that_is_followed_reads_as_one_text_and_its_artifact_is_fetched_whole() {
    let farm = farm();
    let manifest =
        "tasks:\n- one: echo first; echo data >out.txt\n- two: echo second\nartifacts: [out.txt]\n";
    let ended = farm
        .submit(manifest)
        .args(["-f", "--tag", "t", "--note", "a note"])
        .expect_success();
    let said = ended.stdout();
    let place = |text: &str| {
        said.find(text)
            .unwrap_or_else(|| panic!("`{text}` is not in:\n{said}"))
    };
    let url = said.lines().next().expect("the job's URL");
    assert_eq!(url, format!("{}/~ada/job/1", farm.url()));
    let order = [
        "[kiln] task one\n",
        "\nfirst\n",
        "[kiln] task one: success",
        "[kiln] task two\n",
        "\nsecond\n",
        "[kiln] task two: success",
        "[kiln] success",
    ];
    assert!(order.map(place).is_sorted(), "{said}");
    assert_eq!(said.matches("[kiln] task one\n").count(), 1, "{said}");

    farm.client(["artifacts", url, "--download", "got"])
        .expect_success();
    assert_eq!(
        fs::read(farm.dir().join("got/out.txt")).expect("the artifact"),
        b"data\n"
    );
    farm.client(["list"])
        .expect_success()
        .expect_stdout("success")
        .expect_stdout("#t a note");
    let shown = farm.client(["show", "1"]).expect_success();
    shown
        .expect_stdout("worker     local")
        .expect_stdout("✔ two  success");
    let json: Value = farm.show("1");
    assert_eq!(json["status"], "SUCCESS");
    assert_eq!(json["tags"], serde_json::json!(["t"]));
    farm.client(["logs", "1", "--task", "two"])
        .expect_success()
        .expect_stdout("second");
    farm.client(["logs", "1", "--task", "three"])
        .expect_status(2)
        .expect_stderr("it has one, two");
}

#[test]
fn the_exit_status_says_how_the_job_ended() {
    let farm = farm();
    let failed = farm
        .submit("tasks:\n- bad: exit 7\n")
        .arg("-f")
        .expect_status(1);
    failed.expect_stdout("[kiln] task bad: failed");
    let running = farm.submit("tasks:\n- long: sleep 600\n").arg("-f").start();
    running.wait_for_stdout("+ sleep 600");
    farm.client(["cancel", "2"])
        .expect_success()
        .expect_stderr("job 2 is cancelled");
    running.expect_status(4);
    farm.client(["logs", "-f", "1"]).expect_status(1);
    let old = farm.client(["cancel", "1"]).expect_status(2);
    assert!(!old.stderr().is_empty());
}

#[test]
fn ctrl_c_leaves_a_followed_job_and_says_how_to_come_back() {
    let farm = farm();
    let running = farm.submit("tasks:\n- long: sleep 600\n").arg("-f").start();
    running.wait_for_stdout("+ sleep 600");
    running.signal(Signal::INT);
    running
        .expect_status(130)
        .expect_stderr("`kiln logs -f 1` comes back to it");
    assert_eq!(farm.show("1")["status"], "RUNNING");
    farm.client(["cancel", "1"]).expect_success();
    farm.wait_for_end("1");
}

#[test]
fn what_a_log_or_a_note_has_for_the_terminal_is_not_printed_in_lists() {
    let farm = farm();
    farm.submit(HELLO)
        .args(["--note", "a\u{1b}]0;evil\u{7}b\u{1b}[2J"])
        .expect_success();
    for command in [&["list"][..], &["show", "1"]] {
        let said = farm
            .client(command.iter().copied())
            .expect_success()
            .stdout();
        assert!(
            said.contains("ab") && !said.contains('\u{1b}') && !said.contains("evil"),
            "{said:?}"
        );
    }
}

#[test]
fn pending_jobs_wait_for_start_or_for_a_group_and_resubmit_makes_another() {
    let farm = farm();
    for _ in 0..3 {
        farm.submit(HELLO).arg("--pending").expect_success();
    }
    farm.client(["start", "1"]).expect_success();
    assert_eq!(farm.wait_for_end("1")["status"], "SUCCESS");
    farm.client(["group", "2", "3", "--note", "both"])
        .expect_success()
        .expect_stdout("of 2 jobs");
    assert_eq!(farm.wait_for_end("3")["status"], "SUCCESS");
    let again = farm.client(["resubmit", "1", "-f"]).expect_success();
    again
        .expect_stdout("/~ada/job/4\n")
        .expect_stdout("[kiln] success");
}

#[test]
fn a_wrong_manifest_is_told_with_file_line_and_remedy_and_nothing_is_submitted() {
    let farm = Farm::start();
    let wrong = farm.submit("tasks:\n- Build It: make\n").expect_status(2);
    wrong
        .expect_stderr("line 3, column 3")
        .expect_stderr("use 1 to 128 lower-case letters");
    farm.client(["list"])
        .expect_success()
        .expect_stderr("there are no jobs");
}

#[test]
fn who_is_there_and_what_waits_and_why_is_told() {
    let farm = Farm::start();
    farm.submit(HELLO).expect_success();
    farm.client(["queue"])
        .expect_success()
        .expect_stdout("~ada")
        .expect_stdout("no worker");
    farm.client(["queue", "--json"])
        .expect_success()
        .expect_stdout("\"reason\":");
    farm.client(["workers"])
        .expect_success()
        .expect_stderr("no worker is here");
    let farm = super::farm();
    farm.client(["workers"])
        .expect_success()
        .expect_stdout("local")
        .expect_stdout("debian/bookworm/");
}

#[test]
fn a_login_is_kept_for_the_user_alone_and_its_token_goes_to_no_other_server() {
    let farm = Farm::start();
    let kiln = farm.kiln();
    let url = farm.url();
    let login = kiln
        .kiln(["login", &url, "--token-file", "token"])
        .expect_success();
    login.expect_stderr("as ~ada");
    let file = kiln.home().join(".config/kiln/login.json");
    let mode = fs::metadata(&file).expect("the login").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    kiln.kiln(["list"]).expect_success();
    let other = kiln
        .kiln(["list", "--server", "http://127.0.0.1:1"])
        .expect_status(2);
    other.expect_stderr("there is no token for http://127.0.0.1:1");
    let bad = kiln
        .kiln(["login", &url])
        .stdin("kiln_u_nonsense\n")
        .expect_status(2);
    assert!(!bad.stderr().contains("nonsense"), "{bad}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("a mode");
    kiln.kiln(["list"])
        .expect_status(2)
        .expect_stderr("others may read it");
}

#[test]
fn a_farm_that_cant_be_reached_is_said_with_status_3() {
    let farm = Farm::start();
    let away = farm
        .client(["list"])
        .env("KILN_SERVER", "http://127.0.0.1:1");
    away.expect_status(3).expect_stderr("127.0.0.1:1");
    farm.kiln()
        .kiln(["list"])
        .expect_status(2)
        .expect_stderr("`kiln login URL` once");
}

#[test]
fn a_farms_job_runs_again_here_with_its_manifest() {
    let farm = farm();
    farm.submit("tasks:\n- one: echo from the farm\n")
        .arg("-f")
        .expect_success();
    let url = format!("{}/~ada/job/1", farm.url());
    let again = farm
        .client(["run", "--dummy", "--job", &url])
        .expect_success();
    again.expect_stdout("from the farm").expect_stderr("image");
    farm.client(["run", "--dummy", "--job", "99"])
        .expect_status(2)
        .expect_stderr("there is no job 99");
}

#[test]
fn a_url_of_another_farms_job_names_none_of_this_ones() {
    let farm = farm();
    farm.submit("tasks:\n- one: sleep 600\n").expect_success();
    let other = "https://elsewhere.example/~ada/job/1";
    for command in ["cancel", "show", "logs", "artifacts", "resubmit", "group"] {
        farm.client([command, other])
            .expect_status(2)
            .expect_stderr("is a job of another farm");
    }
    let url = format!("{}/~ada/job/1", farm.url());
    farm.client(["cancel", &url]).expect_success();
}

#[test]
fn a_job_that_has_ended_is_followed_in_the_order_in_which_it_ran() {
    let farm = farm();
    farm.submit("tasks:\n- one: echo of-one\n- two: echo of-two\n")
        .arg("-f")
        .expect_success();
    let order = [
        "[kiln] job 1",
        "[kiln] task one\n",
        "\nof-one",
        "[kiln] task one: success",
        "[kiln] task two\n",
        "\nof-two",
        "[kiln] success",
    ];
    for _ in 0..4 {
        let text = farm.client(["logs", "-f", "1"]).expect_success().stdout();
        let places: Vec<_> = order.iter().map(|part| text.find(part)).collect();
        assert!(
            places.is_sorted() && places[0].is_some(),
            "{places:?}: {text}"
        );
    }
}
