//! A farm of two servers on real engines, behind a proxy, with workers in other networks.

use std::{io::Write as _, net::TcpStream};

use rustix::process::Signal;

use crate::{
    farm_isolated::Networks,
    harness::{Engines, Farm, Proxy, socket},
};

/// Where the proxy listens in its own network.
const ADDRESS: &str = "10.77.0.1:8080";

/// A task that counts for a while.
const COUNTS: &str = "tasks:
- count: |
    set +x
    for number in $(seq 1 200); do echo \"number $number\"; sleep 0.2; done
artifacts:
- counted
";

fn manifest() -> String {
    COUNTS.replace("done\n", "done | tee ~/counted\n")
}

#[track_caller]
fn is_whole(log: &str) {
    let said = log.lines().filter(|line| line.starts_with("number "));
    let wanted: Vec<String> = (1..=200).map(|number| format!("number {number}")).collect();
    assert_eq!(said.collect::<Vec<_>>(), wanted);
}

#[test]
fn a_server_that_is_killed_during_a_build_is_missed_by_nobody_while_there_is_another() {
    let engines = Engines::start();
    let networks = Networks::new();
    let files = tempfile::tempdir().expect("a directory");
    let at = |name: &str| socket(files.path(), name);
    let mut one = engines.farm_at(&at("one"));
    let two = one.beside_at(&at("two"));
    let servers = ["one", "two"].map(|name| format!("unix@{}", at(name).display()));
    let inside = networks.server();
    let proxys = format!("unix@{} mode 600", at("proxy").display());
    let _proxy = Proxy::start(&inside, &[ADDRESS, &proxys], &servers, files.path());

    // One has a network with one way to the proxy, the other has none.
    let through = format!("http://{ADDRESS}");
    let near = one.worker_inside(Networks::inside(&networks.worker), "near", &through);
    let far = one.worker_inside(
        Networks::inside(&networks.nowhere),
        "far",
        &format!("unix:{}", at("proxy").display()),
    );

    let jobs = [one.job(&manifest()), one.job(&manifest())];
    let followed = two.client(["logs", "--follow", &jobs[0]]).start();
    let followed_at_the_first = one.client(["logs", "--follow", &jobs[1]]).start();
    let proxied = two
        .client(["logs", "--follow", &jobs[1]])
        .env("KILN_SERVER", format!("unix:{}", at("proxy").display()))
        .start();
    two.wait_for_log(&jobs[0], "number 3\n");
    two.wait_for_log(&jobs[1], "number 3\n");
    one.kill();

    is_whole(&followed.expect_status(0).stdout());
    is_whole(&proxied.expect_status(0).stdout());
    for job in &jobs {
        let shown = two.wait_for_end(job);
        assert_eq!(shown["status"], "SUCCESS", "{shown:#}");
        assert_eq!(shown["attempts"].as_array().map(Vec::len), Some(1));
        assert_eq!(shown["artifacts"][0]["path"], "counted", "{shown:#}");
        is_whole(&two.log(job));
    }
    // Whoever talked to just that server waits for it, and goes on.
    one.go_on();
    is_whole(&followed_at_the_first.expect_status(0).stdout());
    is_whole(&one.log(&jobs[0]));
    drop((near, far));
}

#[test]
fn servers_that_are_restarted_one_after_the_other_cost_no_job_and_no_request() {
    let engines = Engines::start();
    let files = tempfile::tempdir().expect("a directory");
    let at = |name: &str| socket(files.path(), name);
    let mut one = engines.farm_at(&at("one"));
    let mut two = one.beside_at(&at("two"));
    let servers = ["one", "two"].map(|name| format!("unix@{}", at(name).display()));
    let proxys = at("proxy");
    let bind = format!("unix@{} mode 600", proxys.display());
    let _proxy = Proxy::start(&[], &[&bind], &servers, files.path());
    let server = format!("unix:{}", proxys.display());
    let token = one.worker_token("one");
    let worker = one
        .worker_command("one", &server, &token)
        .arg("--dummy")
        .start();
    worker.wait_for_stderr("knows this worker as");
    let job = one.job("tasks:\n- wait: \"sleep 20\"\n");
    for farm in [&mut one, &mut two] {
        farm.server().signal(Signal::TERM);
        farm.server().wait_for_stderr("ending when");
        // It serves on until the proxy has seen that it goes.
        for _ in 0..20 {
            let shown = farm.client(["show", &job]).env("KILN_SERVER", &server);
            shown.expect_success();
        }
        farm.stopped();
        farm.go_on();
    }
    assert_eq!(one.wait_for_end(&job)["status"], "SUCCESS");
}

#[test]
fn a_server_that_is_asked_to_end_waits_for_no_worker_and_no_follower() {
    let mut farm = Farm::start();
    let worker = farm.dummy_worker("one");
    let job = farm.job("tasks:\n- wait: \"sleep 30\"\n");
    let follower = farm.client(["logs", "--follow", &job]).start();
    farm.wait_for(&job, "running", |shown| shown["status"] == "RUNNING");
    // Whoever says nothing, or not all of it, is not waited for either.
    let _idle = TcpStream::connect(farm.address()).expect("a connection");
    let mut half = TcpStream::connect(farm.address()).expect("a connection");
    half.write_all(b"GET /readyz HTTP/1.1\r\nHost: ")
        .expect("half a request");

    farm.server().signal(Signal::TERM);
    farm.stopped();
    farm.go_on();
    assert_eq!(farm.wait_for_end(&job)["status"], "SUCCESS");
    follower.expect_status(0);
    drop(worker);
}
