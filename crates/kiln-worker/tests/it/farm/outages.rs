//! The server goes, answers get lost, leases end.

use std::{path::Path, time::Duration};

use kiln_core::job::{JobStatus, TaskStatus};
use kiln_vm::dummy::{Call, Dummy};
use kiln_worker::farm::Wish;

use super::harness::{Farm, script, soon, spoken};

/// Waits until a guest has made a file.
async fn made(path: &Path) {
    soon(async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_lost_repeats_no_byte() {
    let farm = Farm::start();
    farm.server.faults(|faults| faults.lose_answers = 6);
    let fence = farm
        .server
        .offer(1, &script("for i in $(seq 500); do echo line $i; done"));
    assert_eq!(
        soon(farm.server.end(fence)).await.status,
        JobStatus::Success
    );
    let lines: Vec<String> = (1..=500).map(|i| format!("line {i}\n")).collect();
    let expected = format!("[farm] first line\n{}", lines.concat());
    assert_eq!(spoken(&farm.server.log(fence, Some("build"))), expected);
    let log = farm.server.log(fence, None);
    assert_eq!(log.matches("job 1 on dummy").count(), 1, "{log}");
    farm.drained().await;
}

#[tokio::test]
async fn what_the_farm_says_in_between_takes_the_place_of_no_byte() {
    let farm = Farm::start();
    farm.server.faults(|faults| faults.say_between = 6);
    let fence = farm
        .server
        .offer(1, &script("for i in $(seq 500); do echo line $i; done"));
    let end = soon(farm.server.end(fence)).await;
    assert_eq!(end.status, JobStatus::Success);
    let logs = [None, Some("build")].map(|task| farm.server.log(fence, task));
    let between = logs.concat().matches("[farm] between\n").count();
    assert_eq!(between, 6, "{logs:?}");
    let lines: Vec<String> = (1..=500).map(|i| format!("line {i}\n")).collect();
    let expected = format!("[farm] first line\n{}", lines.concat());
    let build = logs[1].replace("[farm] between\n", "");
    assert_eq!(spoken(&build), expected);
    farm.drained().await;
}

#[tokio::test]
async fn a_job_goes_on_while_the_server_is_away_and_is_told_when_it_is_back() {
    let farm = Farm::start();
    let done = farm.data.path().join("done");
    farm.server
        .faults(|faults| faults.away_after = Some("task build running".into()));
    let fence = farm
        .server
        .offer(1, &script(&format!("echo hello\ntouch {}", done.display())));
    made(&done).await;
    assert!(!farm.server.log(fence, Some("build")).contains("hello"));
    farm.server.come_back();
    let end = soon(farm.server.end(fence)).await;
    assert_eq!(end.status, JobStatus::Success);
    assert!(spoken(&farm.server.log(fence, Some("build"))).ends_with("\nhello\n"));
    let hellos = soon(
        farm.server
            .until(|seen| (seen.hellos.len() > 1).then(|| seen.hellos.clone())),
    )
    .await;
    assert_eq!(hellos[0].session, hellos[1].session);
    assert!(hellos[0].leases.is_empty());
    farm.drained().await;
}

#[tokio::test]
async fn a_full_spool_stops_the_guest_until_the_server_is_back() {
    let farm = Farm::start();
    let (half, done) = (farm.data.path().join("half"), farm.data.path().join("done"));
    farm.server
        .faults(|faults| faults.away_after = Some("task build running".into()));
    let manifest = script(&format!(
        "flood 500000\ntouch {}\nflood 8000000\ntouch {}",
        half.display(),
        done.display()
    ));
    let fence = farm.server.offer(1, &manifest);
    made(&half).await;
    // Never, with room for 1 MiB.
    assert!(!done.exists());
    farm.server.come_back();
    let end = soon(farm.server.end(fence)).await;
    assert_eq!(end.status, JobStatus::Success);
    assert!(done.exists());
    let log = farm.server.log(fence, Some("build"));
    // The flood, and a few lines of the shell.
    assert!((8_500_000..8_501_000).contains(&log.len()), "{}", log.len());
    farm.drained().await;
}

#[tokio::test]
async fn a_lease_that_is_lost_takes_the_guest_along_and_nothing_more_is_said() {
    let farm = Farm::start();
    farm.server
        .faults(|faults| faults.lose_after = Some("task build running".into()));
    let fence = farm.server.offer(1, &script("echo x\nhang"));
    farm.server.heard(fence, "task build running").await;
    stopped(&farm).await;
    let said = farm.server.said(fence);
    let late: Vec<&String> = said
        .iter()
        .filter(|line| line.starts_with("late"))
        .collect();
    assert!(late.len() <= 1, "{said:?}");
    // The slot is free again.
    let other = farm.server.offer(2, &script("echo y"));
    assert_eq!(
        soon(farm.server.end(other)).await.status,
        JobStatus::Success
    );
    assert!(farm.server.said(fence).len() <= said.len() + 1);
    farm.drained().await;
}

#[tokio::test]
async fn a_lease_that_is_lost_before_begun_runs_no_task() {
    let farm = Farm::start();
    let ran = farm.data.path().join("ran");
    farm.server
        .faults(|faults| faults.lose_after = Some("started d1".into()));
    let fence = farm
        .server
        .offer(1, &script(&format!("touch {}", ran.display())));
    farm.server.heard(fence, "started d1").await;
    stopped(&farm).await;
    assert!(!ran.exists());
    farm.drained().await;
}

#[tokio::test]
async fn a_cancel_kills_the_guest() {
    let farm = Farm::start();
    let fence = farm.server.offer(1, &script("hang"));
    soon(farm.server.heard(fence, "task build running")).await;
    farm.server.cancel(fence);
    stopped(&farm).await;
    farm.drained().await;
}

#[tokio::test]
async fn a_lease_that_was_lost_meanwhile_is_found_out_by_the_next_hello() {
    let farm = Farm::start();
    let fence = farm.server.offer(1, &script("hang"));
    soon(farm.server.heard(fence, "task build running")).await;
    farm.server.go_away();
    farm.server.cancel(fence);
    farm.server.come_back();
    stopped(&farm).await;
    farm.drained().await;
}

#[tokio::test]
async fn a_job_that_times_out_says_so() {
    let mut farm = Farm::start();
    let fence = farm
        .server
        .offer_with(1, &script("hang"), |offer| offer.deadline_seconds = 1);
    let end = soon(farm.server.end(fence)).await;
    assert_eq!(end.status, JobStatus::Timeout);
    assert_eq!(end.tasks, [("build".to_owned(), TaskStatus::Failed)]);
    farm.wishes(Wish::Stop);
    farm.ended().await.unwrap();
}

#[tokio::test]
async fn much_output_goes_through_whole() {
    let farm = Farm::on(Dummy::default());
    let fence = farm.server.offer(1, &script("flood 30000000 long"));
    assert_eq!(
        soon(farm.server.end(fence)).await.status,
        JobStatus::Success
    );
    let first = "[farm] first line\n".len();
    let log = farm.server.log(fence, Some("build"));
    assert!(log.len() >= first + 30_000_000, "{}", log.len());
    farm.drained().await;
}

/// Waits until the guest is stopped.
async fn stopped(farm: &Farm) {
    soon(async {
        while !farm.host.calls().contains(&Call::Stop) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
