//! Nothing gets out of a guest but to the internet: attempts from inside, as
//! the guest's root, looked at from both ends. An attempt has failed when the
//! guest got no answer *and* nobody in the tests' internet saw a packet of it.
//!
//! Each attempt has a name and a port of its own. A table of them all goes to
//! standard error, whether the test passes or not.

mod attempts;
pub mod users;

use std::{collections::BTreeMap, fmt::Write as _, io::Write as _};

use crate::{
    harness::Ended,
    internet::{FIRST_PORT, HOST, Internet, PORTS, Seen, WORLD},
};
use attempts::{ATTEMPTS, Attempt, Expected};
use users::User;

const SCRIPT: &str = include_str!("escape/escape.pl");

/// In the neighbour's secret, and in the environment of kiln. Spelt in two
/// parts wherever it is searched for, as the search must not find itself.
const SECRET: &str = "kiln-neighbours-secret-5b1f";
const HOST_SECRET: &str = "kiln-hosts-environment-77ac";

/// Says that it listens, and who reached it; until it is killed.
const NEIGHBOUR: &str = r#"secrets: [token]
environment: {NEIGHBOUR: kiln-neighbours-secret-5b1f}
tasks:
- listen: |
    perl -MIO::Socket::INET -MIO::Select -e '
      $| = 1; my $all = IO::Select->new;
      $all->add(IO::Socket::INET->new(LocalPort => $_, Listen => 9, ReuseAddr => 1) // die "$_: $!") for 7000 .. 7098;
      print "the neighbour listens\n";
      while (my @some = $all->can_read) { for (@some) { my $from = $_->accept; print "REACHED by ", $from->peerhost, "\n"; } }
    '
"#;

#[test]
fn nothing_gets_out_of_a_guest_of_root() {
    match User::root() {
        Ok(user) => escape(&user),
        Err(reason) => tell(&format!("\nescape tests as root: NOT RUN: {reason}\n")),
    }
}

#[test]
fn nothing_gets_out_of_a_guest_of_an_ordinary_user() {
    escape(&User::ordinary());
}

/// What the guest said of an attempt, and the packets of it that were seen.
#[derive(Default)]
struct Outcome {
    answered: Option<bool>,
    why: String,
    seen: Vec<Seen>,
}

fn escape(user: &User) {
    let internet = Internet::new();
    let neighbour = user.kiln();
    neighbour.file("token", SECRET);
    user.give(neighbour);
    let beside = user
        .run(&internet, "neighbour", NEIGHBOUR)
        .args(["--secret", "token=file:token:token"])
        .env("KILN_HOST_SECRET", HOST_SECRET)
        .start();
    beside.wait_for_stdout("\nthe neighbour listens");

    let kiln = user.kiln();
    let script = kiln.file("escape.pl", SCRIPT);
    let plan = kiln.file("plan", plan(&internet));
    kiln.file("own", "kiln-own-secret-19d0");
    user.give(kiln);
    let ended = user
        .run(
            &internet,
            "escape",
            "secrets: [script, plan, own]\ntasks:\n- escape: sudo perl /tmp/escape.pl /tmp/plan\n",
        )
        .args([
            "--secret",
            &format!("script=file:{}:/tmp/escape.pl", script.display()),
        ])
        .args([
            "--secret",
            &format!("plan=file:{}:/tmp/plan", plan.display()),
        ])
        .args(["--secret", "own=file:own:own"])
        .env("KILN_HOST_SECRET", HOST_SECRET)
        .takes_turns(true)
        .expect_success();

    let log = String::from_utf8_lossy(&beside.stdout_so_far()).into_owned();
    assert!(
        !log.lines().any(|line| line.starts_with("REACHED")),
        "another guest was reached:\n{log}"
    );
    judge(user, &outcomes(&ended, &internet), &ended);
}

/// One line for each attempt, as escape.pl reads it.
fn plan(internet: &Internet) -> String {
    let ports: Vec<String> = internet.open_ports().iter().map(u16::to_string).collect();
    assert!(ports.len() > 50, "the host listens on {ports:?} only");
    assert!(ATTEMPTS.len() <= PORTS, "an attempt has no port of its own");
    let mut plan = String::new();
    for (index, attempt) in ATTEMPTS.iter().enumerate() {
        let how = attempt.how.replace("OPEN-PORTS", &ports.join(" "));
        let _ = writeln!(plan, "{} {} {how}", attempt.name, FIRST_PORT + index);
    }
    plan
}

fn outcomes(ended: &Ended, internet: &Internet) -> BTreeMap<&'static str, Outcome> {
    let mut outcomes: BTreeMap<&str, Outcome> = BTreeMap::new();
    for line in ended.task_log("escape").lines() {
        let mut words = line.splitn(4, ' ');
        let (Some("escape"), Some(name), Some(result)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let Some(attempt) = ATTEMPTS.iter().find(|attempt| attempt.name == name) else {
            continue;
        };
        let outcome = outcomes.entry(attempt.name).or_default();
        outcome.answered = Some(result == "open");
        words
            .next()
            .unwrap_or_default()
            .clone_into(&mut outcome.why);
    }
    for seen in internet.seen() {
        let attempt = match &seen.mark {
            Some(mark) => ATTEMPTS.iter().find(|attempt| attempt.name == mark),
            None => ATTEMPTS.get(seen.port.wrapping_sub(FIRST_PORT)),
        };
        let attempt = attempt.unwrap_or_else(|| panic!("nobody's packet: {seen:?}"));
        outcomes.entry(attempt.name).or_default().seen.push(seen);
    }
    outcomes
}

/// One assertion for each attempt; all are told of.
fn judge(user: &User, outcomes: &BTreeMap<&str, Outcome>, ended: &Ended) {
    let mut table = format!("\nescape tests, kiln run by {user}:\n");
    let mut failed = Vec::new();
    for attempt in ATTEMPTS {
        let none = Outcome::default();
        let outcome = outcomes.get(attempt.name).unwrap_or(&none);
        let result = match verdict(attempt, outcome) {
            Ok(()) => "ok".to_owned(),
            Err(why) => {
                failed.push(format!("{}: {why}", attempt.name));
                format!("FAILED: {why}")
            }
        };
        let _ = writeln!(
            table,
            "  {:<58} {:<9} {result}",
            attempt.name, attempt.expected
        );
    }
    tell(&table);
    assert!(failed.is_empty(), "{}\n{ended}", failed.join("\n"));
}

/// Whether an attempt ended as it should, from both ends.
fn verdict(attempt: &Attempt, outcome: &Outcome) -> Result<(), String> {
    let Some(answered) = outcome.answered else {
        return Err("it was not tried".into());
    };
    // What leaves for the internet has the host's address and nothing inside.
    let is_ordinary = |seen: &&Seen| {
        seen.source == HOST && seen.destination == WORLD && matches!(&*seen.protocol, "6" | "17")
    };
    let strange: Vec<&Seen> = outcome
        .seen
        .iter()
        .filter(|seen| !is_ordinary(seen))
        .collect();
    let arrived = outcome.seen.iter().any(|seen| seen.node == "world");
    match attempt.expected {
        _ if !strange.is_empty() => Err(format!("it was seen: {strange:?}")),
        Expected::Reached if !answered || !arrived => {
            Err(format!("the world did not answer: {}", outcome.why))
        }
        Expected::Found if !answered => Err(format!("it was not found: {}", outcome.why)),
        Expected::Closed if answered => Err(format!("the guest got an answer: {}", outcome.why)),
        Expected::Closed if arrived => Err(format!("it was seen: {:?}", outcome.seen)),
        _ => Ok(()),
    }
}

/// To a person, also when the test passes: the harness captures only what the
/// printing macros print.
fn tell(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
