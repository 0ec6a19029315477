//! Workers that fail jobs for reasons of their own.

use kiln_core::{farm::Fence, job::JobStatus};
use kiln_vm::dummy::{Dummy, Start};
use kiln_wire::message::Mood;

use super::harness::{Farm, script, soon};

async fn mood(farm: &Farm, wanted: impl Fn(&Mood) -> bool) -> Mood {
    soon(farm.server.until(|seen| {
        let state = seen.states.last()?;
        wanted(&state.mood).then(|| state.mood.clone())
    }))
    .await
}

async fn given_back(farm: &Farm, fence: Fence, counts: bool) {
    let back = soon(farm.server.returned(fence)).await;
    assert_eq!(back.counts, counts, "{}", back.reason);
    let worker = farm.data.path().display().to_string();
    assert!(!back.reason.contains(&worker), "{}", back.reason);
    assert!(!farm.server.said(fence).contains(&"begun".to_owned()));
}

#[tokio::test]
async fn a_worker_with_a_full_disk_gives_jobs_back_says_why_and_returns_when_it_is_well() {
    let farm = Farm::on(Dummy::new(Start::NoSpace));
    farm.host.feels(Some("no disk space is left for guests"));
    let fence = farm.server.offer(1, &script("echo never"));
    given_back(&farm, fence, false).await;
    let unwell = Mood::Unwell {
        reason: "no disk space is left for guests".into(),
    };
    assert_eq!(mood(&farm, |mood| *mood != Mood::Ready).await, unwell);
    let other = farm.server.offer(2, &script("echo never"));
    given_back(&farm, other, false).await;
    let back = soon(farm.server.returned(other)).await;
    assert_eq!(back.reason, "the worker is not well");
    farm.host.becomes(Dummy::default());
    farm.host.feels(None);
    mood(&farm, |mood| *mood == Mood::Ready).await;
    let third = farm.server.offer(3, &script("echo well"));
    assert_eq!(
        soon(farm.server.end(third)).await.status,
        JobStatus::Success
    );
    farm.drained().await;
}

#[tokio::test]
async fn a_host_that_has_no_place_for_a_job_is_as_bad() {
    let farm = Farm::start();
    farm.host.takes_none(Some("/secret/path: no such image"));
    farm.host.feels(Some("there is no image"));
    let fence = farm.server.offer(1, &script("echo never"));
    given_back(&farm, fence, false).await;
    mood(
        &farm,
        |mood| matches!(mood, Mood::Unwell { reason } if reason == "there is no image"),
    )
    .await;
    farm.drained().await;
}

#[tokio::test]
async fn guests_that_never_answer_count_as_attempts_until_there_are_three() {
    let farm = Farm::on(Dummy::new(Start::NeverAnswers));
    farm.host.feels(Some("guests don't start"));
    for fence in 1..=3 {
        let fence = farm.server.offer(fence, &script("echo never"));
        given_back(&farm, fence, true).await;
        let well = fence.0 < 3;
        if well {
            let state = farm.server.until(|seen| seen.states.last().cloned()).await;
            assert_eq!(state.mood, Mood::Ready);
        }
    }
    mood(&farm, |mood| matches!(mood, Mood::Unwell { .. })).await;
    farm.drained().await;
}

#[tokio::test]
async fn a_job_that_fails_on_a_host_that_seems_well_is_spared_once() {
    let farm = Farm::on(Dummy::new(Start::BadImage));
    let mut counted = Vec::new();
    for fence in 1.. {
        mood(&farm, |mood| *mood == Mood::Ready).await;
        // The same job again.
        let fence = farm
            .server
            .offer_with(fence, &script("echo never"), |offer| offer.job.0 = 7);
        let back = soon(farm.server.returned(fence)).await;
        // It may have come before the worker could say that it takes none.
        if back.reason != "the worker is not well" {
            assert!(back.reason.contains("image"), "{}", back.reason);
            counted.push(back.counts);
        }
        if counted.len() == 2 {
            break;
        }
    }
    assert_eq!(counted, [false, true]);
    farm.drained().await;
}

#[tokio::test]
async fn a_job_is_given_back_also_when_no_log_can_be_stored() {
    let farm = Farm::on(Dummy::new(Start::NoSpace));
    farm.server.faults(|faults| faults.no_space_for_logs = true);
    let fence = farm.server.offer(1, &script("echo never"));
    given_back(&farm, fence, false).await;
    farm.drained().await;
}
