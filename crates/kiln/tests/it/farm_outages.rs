//! What a user, a log and `/readyz` say while one of the farm's engines is away during a
//! build in a real guest, and that the build ends green.
//!
//! It is away for 15 s, or for as many as `KILN_TEST_OUTAGE` says.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use kiln_store::testing::Postgres;

use crate::harness::{Engines, Farm};

/// Every second so often.
const NUMBERS: u64 = 4;

fn outage() -> Duration {
    let said = std::env::var("KILN_TEST_OUTAGE").ok();
    let seconds = said.map_or(15, |said| said.parse().expect("seconds"));
    Duration::from_secs(seconds)
}

/// How many numbers the task counts: it goes on for a while afterwards.
fn numbers() -> u64 {
    (outage().as_secs() + 15) * NUMBERS
}

fn manifest() -> String {
    let numbers = numbers();
    format!(
        "tasks:
- count: |
    set +x
    for number in $(seq 1 {numbers}); do echo \"number $number\"; sleep 0.25; done
- after: echo after
"
    )
}

/// What a server says of itself, and how soon.
fn ready(farm: &Farm) -> (String, Duration) {
    let began = Instant::now();
    let said = curl(&[&format!("{}/readyz", farm.url())]);
    (said, began.elapsed())
}

fn curl(words: &[&str]) -> String {
    let said = Command::new("curl")
        .args(["-s", "-i", "--max-time", "30", "--noproxy", "*"])
        .args(words)
        .output();
    String::from_utf8_lossy(&said.expect("curl").stdout).into_owned()
}

/// Asks as a client does.
fn asks(farm: &Farm) -> String {
    let token = std::fs::read_to_string(farm.dir().join("token")).expect("a token");
    let bearer = format!("Authorization: Bearer {}", token.trim());
    let url = format!("{}/query", farm.url());
    let query = r#"{"query":"{me{username}}"}"#;
    let json = "Content-Type: application/json";
    curl(&["-H", &bearer, "-H", json, "--data", query, &url])
}

/// Waits until `/readyz` says that and nothing after it, and gives all that it said then.
#[track_caller]
fn until_ready_says(farm: &Farm, text: &str) -> String {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let (said, took) = ready(farm);
        assert!(took < Duration::from_secs(10), "{took:?}: {said}");
        if said.ends_with(text) {
            return said;
        }
        assert!(Instant::now() < until, "`{text}` is not the end of {said}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// All numbers once and in order, and what comes after them.
#[track_caller]
fn is_whole(log: &str) {
    let said: Vec<&str> = log
        .lines()
        .filter(|line| line.starts_with("number ") || *line == "after")
        .collect();
    let mut wanted: Vec<String> = (1..=numbers())
        .map(|number| format!("number {number}"))
        .collect();
    wanted.push("after".to_owned());
    assert_eq!(said, wanted);
}

/// A build during which something goes away and comes again, not before the follower was
/// told what it is to be told. Gives what a client was answered meanwhile, and all that the
/// follower was told.
#[track_caller]
fn a_build_outlives(
    farm: &Farm,
    (missing, told): (&str, Option<&str>),
    goes: impl FnOnce(),
    comes: impl FnOnce(),
) -> (String, String) {
    let follows = farm.submit(&manifest()).arg("--follow").start();
    farm.wait_for_log("1", "number 3\n");
    let began = Instant::now();
    goes();
    let said = until_ready_says(farm, missing);
    let asked = Instant::now();
    let answer = asks(farm);
    assert!(asked.elapsed() < Duration::from_secs(10), "{answer}");
    std::thread::sleep(outage().saturating_sub(began.elapsed()));
    if let Some(told) = told {
        follows.wait_for_stderr(told);
    }
    comes();
    until_ready_says(farm, "\r\n\r\nready\n");
    let ended = follows.expect_status(0);
    is_whole(&ended.stdout());
    is_whole(&farm.log("1"));
    let shown = farm.show("1");
    assert_eq!(shown["status"], "SUCCESS", "{shown:#}");
    assert_eq!(shown["attempts"].as_array().map(Vec::len), Some(1));
    tells(&said, &answer, &ended.stderr());
    (answer, ended.stderr())
}

/// Shown with `--nocapture`.
#[expect(clippy::print_stderr, reason = "the transcript of an outage")]
fn tells(ready: &str, answer: &str, told: &str) {
    eprintln!(
        "/readyz:\n{ready}\na client was answered:\n{answer}\nthe follower was told:\n{told}"
    );
}

#[test]
fn a_build_outlives_a_postgresql_that_is_stopped() {
    let postgres = Postgres::start().expect("PostgreSQL");
    let url = postgres.database().expect("a database");
    let farm = Farm::new().database(url).started();
    let _worker = farm.worker("one");
    let (answer, _) = a_build_outlives(
        &farm,
        ("the database does not answer\n", Some("waiting for it")),
        || postgres.stop().expect("PostgreSQL stops"),
        || postgres.start_again().expect("PostgreSQL starts"),
    );
    is_503(&answer);
}

#[test]
fn a_build_outlives_a_postgresql_that_says_nothing() {
    let postgres = Postgres::start().expect("PostgreSQL");
    let url = postgres.database().expect("a database");
    let farm = Farm::new().database(url).started();
    let _worker = farm.worker("one");
    let (answer, _) = a_build_outlives(
        &farm,
        ("the database does not answer\n", Some("waiting for it")),
        || postgres.freeze().expect("PostgreSQL stands still"),
        || postgres.go_on().expect("PostgreSQL goes on"),
    );
    is_503(&answer);
}

/// In the API's own form, and when to come again.
#[track_caller]
fn is_503(answer: &str) {
    let lower = answer.to_lowercase();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(lower.contains("\r\nretry-after: 5\r\n"), "{answer}");
    assert!(answer.contains(r#""code":"UNAVAILABLE""#), "{answer}");
}

#[test]
fn a_build_outlives_an_object_store_that_is_away() {
    let engines = Engines::start();
    let farm = engines.farm();
    let _worker = farm.worker("one");
    let (answer, told) = a_build_outlives(
        &farm,
        (
            "ready\nwarning: the place of logs and artifacts can't be written\n",
            None,
        ),
        || engines.s3.kill().expect("S3 is killed"),
        || engines.s3.restart().expect("S3 starts"),
    );
    // What is decided needs no log.
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(!told.contains("waiting for it"), "{told}");
}

#[test]
fn a_build_outlives_a_bus_that_is_away_and_nothing_is_missing_without_it() {
    let engines = Engines::start();
    let farm = engines.farm();
    let _worker = farm.worker("one");
    let redis = || engines.redis.lock().expect("Redis");
    let (answer, told) = a_build_outlives(
        &farm,
        (
            "ready\nwarning: the bus does not answer: hints to other servers come a second late\n",
            None,
        ),
        || redis().kill().expect("Redis is killed"),
        || redis().up().expect("Redis starts"),
    );
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(!told.contains("waiting for it"), "{told}");
}

#[test]
fn a_server_that_is_started_before_its_bucket_waits_for_it_and_says_so() {
    let engines = Engines::start();
    let farm = engines.prepared();
    engines.s3.kill().expect("S3 is killed");
    let server = farm.serve();
    server.wait_for_stderr("can't be used");
    server.wait_for_stderr("it is tried again");
    engines.s3.restart().expect("S3 starts");
    server.wait_for_stderr("serving http://");
    server.signal(rustix::process::Signal::TERM);
    server.expect_status(0);
}

#[test]
fn a_server_that_is_started_before_its_database_waits_for_it_and_says_so() {
    let postgres = Postgres::start().expect("PostgreSQL");
    let url = postgres.database().expect("a database");
    postgres.stop().expect("PostgreSQL stops");
    let farm = Farm::new().database(url);
    let server = farm.serve();
    server.wait_for_stderr("can't be opened");
    server.wait_for_stderr("it is tried again");
    postgres.start_again().expect("PostgreSQL starts");
    server.wait_for_stderr("serving http://");
    server.signal(rustix::process::Signal::TERM);
    server.expect_status(0);
}
