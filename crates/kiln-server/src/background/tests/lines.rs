//! What the farm says last in logs, whoever waits for that and whatever comes next.

use futures_util::FutureExt as _;
use kiln_core::job::JobStatus;
use kiln_store::model::Changed;

use super::Farm;
use crate::{Retention, app::narrate, background::assign};

async fn last_lines(farm: &Farm, count: usize) -> String {
    let job = farm.server.store.jobs_of(farm.owner, None, 1, false).await;
    let job = job.unwrap().jobs.pop().unwrap().id;
    let log = farm.logs(job).await.swap_remove(0);
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len() - count..].join("\n")
}

#[tokio::test]
async fn why_a_job_ended_is_said_also_when_nobody_waits_for_it() {
    let directory = Farm::new(Retention::default()).await;
    let bucket = Farm::in_a_bucket(Retention::default()).await;
    for farm in [directory, bucket] {
        let (job, _) = farm.running().await;
        let mut changes = farm.server.hints.job(job);
        changes.mark_unchanged();
        let cancel = narrate::deciding_for(&farm.server, |store| async move {
            store.cancel(job, "enough").await
        });
        // Its client goes when it has only begun.
        assert!(cancel.now_or_never().is_none());
        while !farm.is(job, JobStatus::Cancelled).await {
            tokio::task::yield_now().await;
        }
        // Told after the line.
        changes.changed().await.unwrap();
        let said = last_lines(&farm, 1).await;
        assert_eq!(said, "[kiln] the job ended as cancelled: enough");
    }
}

#[tokio::test]
async fn another_attempt_begins_behind_the_line_that_ends_the_one_before() {
    let directory = Farm::new(Retention::default()).await;
    let bucket = Farm::in_a_bucket(Retention::default()).await;
    for farm in [directory, bucket] {
        let (job, fence) = farm.running().await;
        let server = &farm.server;
        let back = narrate::deciding(server, async {
            let store = &server.store;
            let changed = store.give_back(farm.key(fence), "no room", true).await?;
            // Before the line is written where it is written after this, a pass is due.
            let mut pass = Box::pin(assign(server).fuse());
            for _ in 0..100 {
                store.now().await?;
                (&mut pass).now_or_never();
            }
            Ok::<Changed, _>(changed)
        });
        back.await.unwrap();
        if !farm.is(job, JobStatus::Running).await {
            assign(server).await.unwrap();
        }
        let said = last_lines(&farm, 2).await;
        assert_eq!(
            said,
            "[kiln] this attempt ended: no room\n[kiln] ---- attempt 2, on worker alder ----"
        );
    }
}

#[tokio::test]
async fn one_log_that_can_not_be_written_keeps_no_other_job_waiting() {
    let farm = Farm::new(Retention::default()).await;
    // A directory where the log of the first job should be.
    std::fs::create_dir_all(farm.path("logs/0/1/log/in-the-way")).unwrap();
    let (broken, fence) = farm.running().await;
    assert!(farm.is(broken, JobStatus::Running).await);
    let store = &farm.server.store;
    let ended = store.end(farm.key(fence), JobStatus::Failed, None, &[]);
    ended.await.unwrap();
    let (whole, _) = farm.running().await;
    assert!(farm.logs(whole).await[0].contains("on worker alder"));
}
