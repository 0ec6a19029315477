//! What waits, and why: each reason that there is.

use rustix::process::Signal;

use super::HELLO;
use crate::harness::Farm;

const HANGS: &str = "tasks:\n- hang: hang\n";

/// Waits until the job waits for this reason, and looks for it in the queue.
#[track_caller]
fn waits(farm: &Farm, job: &str, why: &str) {
    farm.wait_for(job, why, |shown| {
        let waiting = shown["waiting"].as_str().unwrap_or_default();
        waiting.contains(why)
    });
    farm.client(["queue"]).expect_success().expect_stdout(why);
}

#[track_caller]
fn runs(farm: &Farm, job: &str) {
    farm.wait_for(job, "running", |shown| shown["status"] == "RUNNING");
}

#[test]
fn nobody_has_the_image_or_the_label() {
    let farm = Farm::start();
    let image = farm.job(&format!("image: no/such\n{HELLO}"));
    waits(&farm, &image, "no worker that is here has this image");
    let _worker = farm.dummy_worker("one");
    waits(&farm, &image, "no worker that is here has this image");
    let submitted = farm.submit(HELLO).args(["--require", "ssd=yes"]);
    let said = submitted.expect_success().stdout();
    let label = said.trim_end().rsplit('/').next().expect("a number");
    waits(&farm, label, "the labels that the job requires");
    // None of them holds up what can run.
    let other = farm.job(HELLO);
    assert_eq!(farm.wait_for_end(&other)["status"], "SUCCESS");
}

#[test]
fn all_slots_are_busy_and_the_position_is_told() {
    let farm = Farm::start();
    let _worker = farm.dummy_worker("one");
    let first = farm.job(HANGS);
    runs(&farm, &first);
    let second = farm.job(HANGS);
    waits(&farm, &second, "busy; position 1");
    let third = farm.job(HELLO);
    waits(&farm, &third, "busy; position 2");
    // A cancel frees the slot for the next.
    farm.client(["cancel", &first]).expect_success();
    farm.client(["cancel", &first])
        .expect_status(2)
        .expect_stderr(&format!("job {first} has ended already: cancelled"));
    runs(&farm, &second);
    waits(&farm, &third, "busy; position 1");
}

#[test]
fn an_owner_has_as_many_running_jobs_as_may_be() {
    let farm = Farm::new().words(["--share-cap", "1"]).started();
    let _workers = ["one", "two"].map(|name| farm.dummy_worker(name));
    let first = farm.job(HANGS);
    runs(&farm, &first);
    let second = farm.job(HELLO);
    waits(
        &farm,
        &second,
        "as many jobs of this owner run as may at once: 1",
    );
}

#[test]
fn a_worker_that_is_paused_takes_none_until_it_goes_on() {
    let farm = Farm::start();
    let _worker = farm.dummy_worker("one");
    let pause = ["worker", "pause", "one", "--reason", "a new disk"];
    farm.admin(pause).expect_success();
    let job = farm.job(HELLO);
    waits(&farm, &job, "a new disk");
    let workers = farm.client(["workers"]).expect_success();
    workers.expect_stdout("a new disk");
    farm.admin(["worker", "resume", "one"]).expect_success();
    assert_eq!(farm.wait_for_end(&job)["status"], "SUCCESS");
}

#[test]
fn a_worker_that_drains_takes_none_and_another_beside_it_does() {
    let farm = Farm::start();
    let old = farm.dummy_worker("old");
    let first = farm.job("tasks:\n- wait: until [ -e go ]; do sleep 0.1; done\n");
    runs(&farm, &first);
    old.signal(Signal::TERM);
    let second = farm.job(HELLO);
    waits(&farm, &second, "drain");
    farm.client(["workers"])
        .expect_success()
        .expect_stdout("drain");
    // An upgrade: the new one runs beside the one that drains.
    let _new = farm.dummy_worker("new");
    assert_eq!(farm.wait_for_end(&second)["status"], "SUCCESS");
    assert_eq!(farm.show(&second)["worker"], "new");
    farm.client(["cancel", &first]).expect_success();
    old.expect_status(0);
}
