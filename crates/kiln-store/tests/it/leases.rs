//! Leases: who may report what, and what happens when one ends.

use kiln_core::{
    farm::{Fence, JobId, limits},
    job::{JobStatus, TaskStatus},
};
use kiln_store::model::{Hello, LeaseKey, Moment, NewArtifact, Renewal, Renewed, TokenHash, Voice};

use crate::farm::{Builder, Farm, is_conflict, is_lost, is_not_found, state};

const LEASE: i64 = limits::LEASE_SECONDS as i64;
/// Of a session that said hello once.
const FIRST: Voice = Voice(0);

fn artifact() -> NewArtifact {
    NewArtifact {
        index: 0,
        path: "a".into(),
        size: 1,
        sha256: "00".into(),
    }
}

/// Each report, and whether it was refused because of the lease.
async fn refused(farm: &Farm, key: LeaseKey<'_>) -> Vec<bool> {
    let store = &farm.store;
    vec![
        is_lost(store.holds(key).await),
        is_lost(store.begun(key).await),
        is_lost(store.set_task(key, "build", TaskStatus::Running).await),
        is_lost(store.add_source(key, 0, "c").await),
        is_lost(store.set_digest(key, "d").await),
        is_lost(store.add_artifact(key, &artifact()).await),
        is_lost(store.give_back(key, "full", true).await),
        is_lost(store.end(key, JobStatus::Success, None, &[]).await),
    ]
}

pub async fn every_report_is_refused_without_just_this_lease(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    let birch = farm.builder("birch", 1).await;
    farm.submit(ann).await;
    let others = farm.assigned(&birch).await;
    let twin = farm.another_session(alder.worker);
    farm.hello(&twin, 1, state(0), &[]).await.unwrap();

    let mixed = Builder {
        worker: birch.worker,
        ..farm.another_session(alder.worker)
    };
    let wrong = [
        ("a fence that never was", alder.key(Fence(99))),
        ("another worker's lease", alder.key(others)),
        (
            "another worker with this session",
            LeaseKey {
                worker: birch.worker,
                ..alder.key(fence)
            },
        ),
        ("another session of this worker", twin.key(fence)),
        ("a session that is not known", mixed.key(fence)),
    ];
    for (what, key) in wrong {
        assert_eq!(refused(farm, key).await, [true; 8], "{what}");
        let lease = farm.store.lease(key.worker, key.session, key.fence).await;
        assert_eq!(lease.unwrap(), None, "{what}");
    }
    let before = farm.job(job).await;
    assert_eq!(before.status, JobStatus::Running);
    assert!(farm.store.artifacts(&[job]).await.unwrap().is_empty());

    // The lease of an attempt before: the job is this worker's, but under another.
    farm.store
        .give_back(alder.key(fence), "full", true)
        .await
        .unwrap();
    let newer = farm.assigned(&alder).await;
    assert!(newer > fence);
    let old = refused(farm, alder.key(fence)).await;
    // Repeating what ended it is no harm.
    assert_eq!(old, [true, true, true, true, true, true, false, true]);
    assert_eq!(farm.held(&alder).await, [job]);
}

pub async fn every_report_may_be_repeated(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    let key = alder.key(fence);
    let store = &farm.store;

    assert_eq!(store.holds(key).await.unwrap(), job);
    assert_eq!(store.begun(key).await.unwrap().jobs, [job]);
    assert!(store.begun(key).await.unwrap().jobs.is_empty());
    let begun = store.attempts(job).await.unwrap()[0].begun;
    let running = || store.set_task(key, "build", TaskStatus::Running);
    assert_eq!(running().await.unwrap().jobs, [job]);
    assert!(running().await.unwrap().jobs.is_empty());
    for commit in ["c1", "c2"] {
        store.add_source(key, 0, commit).await.unwrap();
        store.set_digest(key, commit).await.unwrap();
    }
    assert_eq!(store.sources(job).await.unwrap()[0].commit, "c2");
    let id = store.add_artifact(key, &artifact()).await.unwrap();
    assert_eq!(store.add_artifact(key, &artifact()).await.unwrap(), id);
    for _ in 0..2 {
        store.end(key, JobStatus::Timeout, None, &[]).await.unwrap();
    }
    assert_eq!(store.attempts(job).await.unwrap()[0].begun, begun);
    assert_eq!(farm.status(job).await, JobStatus::Timeout);
}

pub async fn no_task_runs_before_begun(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    let key = alder.key(fence);
    let early = farm.store.set_task(key, "build", TaskStatus::Running);
    assert!(is_conflict(early.await));
    farm.store.begun(key).await.unwrap();
    farm.store
        .set_task(key, "build", TaskStatus::Running)
        .await
        .unwrap();
    // And what has begun is not given back.
    assert!(is_conflict(farm.store.give_back(key, "full", true).await));
}

pub async fn a_lease_that_ran_out_is_alive_until_the_reaper_comes(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    farm.pass(LEASE - 5).await;
    assert!(farm.reap().await.jobs.is_empty());
    farm.pass(600).await;
    // Nobody could be heard meanwhile: by the time that a reaper had its turn, or before.
    let long_ago = Moment(farm.store.now().await.unwrap().0 - 600_000_000);
    assert!(farm.store.reap(long_ago).await.unwrap().jobs.is_empty());
    farm.store.begun(alder.key(fence)).await.unwrap();
    assert_eq!(farm.renew(&alder, &[fence]).await, []);
    assert!(farm.reap().await.jobs.is_empty());
    assert_eq!(farm.status(job).await, JobStatus::Running);

    farm.pass(LEASE + 1).await;
    let reaped = farm.reap().await;
    assert_eq!(
        (reaped.ended, reaped.sessions),
        (vec![job], vec![alder.session.clone()])
    );
    assert_eq!(farm.renew(&alder, &[fence]).await, [fence]);
    assert!(is_lost(farm.store.begun(alder.key(fence)).await));
}

pub async fn a_reaper_that_stood_still_before_it_looked_ends_no_lease(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    farm.pass(LEASE + 1).await;
    // When it looked the lease had not run out.
    let heard = Moment(farm.store.now().await.unwrap().0 - (LEASE + 1) * 1_000_000);
    assert!(farm.store.reap(heard).await.unwrap().jobs.is_empty());
    assert_eq!(farm.renew(&alder, &[fence]).await, []);
}

pub async fn many_sessions_renew_at_once_and_each_is_told_its_own(farm: &Farm) {
    let ann = farm.user("ann").await;
    let (alder, birch) = (
        farm.builder("alder", 2).await,
        farm.builder("birch", 1).await,
    );
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(farm.submit(ann).await);
    }
    farm.store.assign().await.unwrap();
    let mut leases = farm.store.leases_of_sessions().await.unwrap();
    leases.sort_by_key(|(_, fence)| *fence);
    let of = |builder: &Builder| -> Vec<Fence> {
        let own = leases
            .iter()
            .filter(|(session, _)| *session == builder.session);
        own.map(|(_, fence)| *fence).collect()
    };
    let (alders, birchs) = (of(&alder), of(&birch));
    assert_eq!((alders.len(), birchs.len(), leases.len()), (2, 1, 3));
    farm.pass(LEASE + 1).await;
    let renewal = |builder: &Builder, leases: &[Fence]| Renewal {
        session: builder.session.clone(),
        token: None,
        leases: leases.to_vec(),
    };
    let nobody = farm.another_session(alder.worker);
    let thief = Renewal {
        token: Some(TokenHash([9; 32])),
        ..renewal(&birch, &birchs)
    };
    let renewals = [
        renewal(&alder, &[alders[1], birchs[0]]),
        renewal(&nobody, &alders),
        thief,
    ];
    assert_eq!(
        farm.store.renew_many(&renewals).await.unwrap(),
        [Renewed::Lost(birchs), Renewed::Gone, Renewed::TakenBack]
    );
    // Just that one was renewed.
    farm.reap().await;
    let left = farm.store.leases_of_sessions().await.unwrap();
    assert_eq!(left, [(alder.session.clone(), alders[1])]);
}

pub async fn a_clock_that_was_put_back_keeps_no_lease_of_who_is_gone(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = farm.submit(ann).await;
    farm.assigned(&alder).await;
    farm.pass(-3600).await;
    assert!(farm.reap().await.jobs.is_empty());
    farm.pass(LEASE + 1).await;
    assert_eq!(farm.reap().await.jobs, [job]);
}

pub async fn who_was_seen_before_a_clock_was_put_back_gets_jobs_when_it_is_seen_again(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = farm.submit(ann).await;
    farm.pass(-3600).await;
    for _ in 0..2 {
        farm.store.assign().await.unwrap();
        assert_eq!(farm.status(job).await, JobStatus::Queued);
        farm.reap().await;
    }
    farm.renew(&alder, &[]).await;
    farm.assigned(&alder).await;
}

pub async fn who_missed_three_renewals_gets_jobs_when_it_is_seen_again(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = farm.submit(ann).await;
    farm.pass(15).await;
    farm.store.assign().await.unwrap();
    assert_eq!(farm.status(job).await, JobStatus::Queued);
    farm.renew(&alder, &[]).await;
    farm.pass(10).await;
    farm.assigned(&alder).await;
}

pub async fn a_clock_that_is_behind_for_a_moment_makes_no_lease_shorter(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    farm.submit(ann).await;
    farm.assigned(&alder).await;
    farm.pass(-3600).await;
    // What a reaper saw just before.
    let heard = Moment(farm.store.now().await.unwrap().0 + 3600 * 1_000_000);
    assert!(farm.store.reap(heard).await.unwrap().jobs.is_empty());
    farm.pass(3600).await;
    assert!(farm.reap().await.jobs.is_empty());
}

async fn lose(farm: &Farm, builder: &Builder, job: JobId) {
    farm.renew(builder, &[]).await;
    farm.store.assign().await.unwrap();
    assert_eq!(farm.held(builder).await, [job]);
    farm.pass(LEASE + 1).await;
    assert_eq!(farm.reap().await.jobs, [job]);
}

pub async fn a_lost_job_goes_back_until_it_was_lost_too_often(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = farm.submit(ann).await;
    for _ in 1..limits::ATTEMPTS {
        lose(farm, &alder, job).await;
        let waiting = farm.job(job).await;
        assert_eq!((waiting.status, waiting.ended), (JobStatus::Queued, None));
        assert!(waiting.reason.unwrap().contains("worker lost"));
        farm.agrees_with_itself().await;
    }
    lose(farm, &alder, job).await;
    let failed = farm.job(job).await;
    assert_eq!(failed.status, JobStatus::Failed);
    assert!(failed.reason.unwrap().contains("worker lost"));
    assert_eq!(farm.tasks(job).await[0].1, TaskStatus::Skipped);
    let attempts = farm.store.attempts(job).await.unwrap();
    let numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

pub async fn a_lost_job_that_has_begun_fails(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    farm.store.begun(alder.key(fence)).await.unwrap();
    farm.pass(LEASE + 1).await;
    assert_eq!(farm.reap().await.ended, [job]);
    let failed = farm.job(job).await;
    assert_eq!(failed.status, JobStatus::Failed);
    assert!(failed.reason.unwrap().starts_with("worker lost"));
}

pub async fn a_clock_that_was_put_forward_takes_no_time_from_jobs(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    farm.store.begun(alder.key(fence)).await.unwrap();
    let jump = 2 * 3600;
    farm.pass(jump).await;
    let before = Moment(farm.store.now().await.unwrap().0 - jump * 1_000_000);
    // Each server has seen it.
    for _ in 0..3 {
        let moved = farm.store.put_forward(before, jump * 1_000_000).await;
        moved.unwrap();
    }
    assert_eq!(farm.renew(&alder, &[fence]).await, []);
    assert!(farm.reap().await.ended.is_empty());
    farm.pass(3600 + 61).await;
    assert_eq!(farm.renew(&alder, &[fence]).await, []);
    assert_eq!(farm.reap().await.ended, [job], "it was moved once");
}

pub async fn a_reaper_with_nothing_to_do_waits_for_nobody(farm: &Farm) {
    let ann = farm.user("ann").await;
    farm.builder("alder", 1).await;
    let job = farm.submit(ann).await;
    // In the middle of somebody's transaction.
    let assigned = farm.store.assign_after(async |_| {
        if !farm.config.url.contains(":memory:") {
            let other = farm.another_store().await;
            let now = other.now().await.unwrap();
            assert!(other.reap(now).await.unwrap().jobs.is_empty());
        }
        Ok(None)
    });
    assert_eq!(assigned.await.unwrap().jobs, [job]);
}

pub async fn what_is_a_minute_past_its_deadline_times_out(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    farm.store.begun(alder.key(fence)).await.unwrap();
    farm.pass(3600 + 50).await;
    farm.renew(&alder, &[fence]).await;
    assert!(farm.reap().await.ended.is_empty());
    farm.pass(11).await;
    // Whatever its worker says.
    assert_eq!(farm.renew(&alder, &[fence]).await, []);
    assert_eq!(farm.reap().await.ended, [job]);
    assert_eq!(farm.status(job).await, JobStatus::Timeout);
    assert_eq!(farm.renew(&alder, &[fence]).await, [fence]);
}

pub async fn a_job_that_was_given_back_waits_again_with_the_reason(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = farm.submit(ann).await;
    // A worker that drains gives back what it never tried, however often.
    for _ in 0..5 {
        let fence = farm.assigned(&alder).await;
        let back = farm
            .store
            .give_back(alder.key(fence), "draining", false)
            .await;
        assert!(back.unwrap().assign);
        let waiting = farm.job(job).await;
        assert_eq!(waiting.status, JobStatus::Queued);
        assert_eq!(waiting.reason.as_deref(), Some("draining"));
        let again = farm
            .store
            .give_back(alder.key(fence), "draining", false)
            .await;
        assert!(again.unwrap().jobs.is_empty(), "once");
    }
    for tries in 1..=limits::ATTEMPTS {
        let fence = farm.assigned(&alder).await;
        let back = farm
            .store
            .give_back(alder.key(fence), "no disk", true)
            .await;
        let ended = back.unwrap().ended;
        assert_eq!(ended.is_empty(), tries < limits::ATTEMPTS);
    }
    let failed = farm.job(job).await;
    assert_eq!((failed.status, failed.attempts), (JobStatus::Failed, 8));
    assert!(failed.reason.unwrap().contains("no disk"));
}

pub async fn a_session_that_connects_again_learns_what_it_lost(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 2).await;
    let (kept, lost) = (farm.submit(ann).await, farm.submit(ann).await);
    farm.store.assign().await.unwrap();
    let leases = farm.store.leases(&alder.session).await.unwrap();
    let fences: Vec<Fence> = leases.iter().map(|(fence, _)| *fence).collect();
    farm.store.cancel(lost, "cancelled").await.unwrap();
    farm.pass(600).await;
    let believed = [fences[0], fences[1], Fence(99)];
    let answer = farm.hello(&alder, 2, state(2), &believed);
    assert_eq!(answer.await.unwrap(), [fences[1], Fence(99)]);
    assert!(farm.reap().await.jobs.is_empty(), "renewed");
    assert_eq!(farm.held(&alder).await, [kept]);
    let sessions = farm.store.sessions().await.unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0].leases, [(fences[0], kept)]);
}

pub async fn a_session_is_one_workers_and_ends_once(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let birch = farm.builder("birch", 1).await;
    let thief = Builder {
        worker: birch.worker,
        session: alder.session.clone(),
    };
    assert!(is_conflict(farm.hello(&thief, 1, state(1), &[]).await));

    farm.store.end_session(&birch.session).await.unwrap();
    assert_eq!(farm.store.sessions().await.unwrap().len(), 1);
    assert!(is_conflict(farm.hello(&birch, 1, state(1), &[]).await));
    assert!(is_not_found(farm.store.renew(&birch.session, &[]).await));
    let late = farm.store.set_state(&birch.session, &state(1)).await;
    assert!(is_not_found(late));

    farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    assert!(is_conflict(farm.store.end_session(&alder.session).await));
    farm.end(&alder, fence, JobStatus::Success).await;
    farm.store.end_session(&alder.session).await.unwrap();
}

pub async fn leases_of_a_worker_that_was_taken_back_run_out(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 2).await;
    let job = farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    farm.store.revoke_worker("alder").await.unwrap();
    farm.submit(ann).await;
    farm.store.assign().await.unwrap();
    assert_eq!(farm.held(&alder).await, [job], "nothing new");
    farm.pass(LEASE - 1).await;
    farm.renew(&alder, &[fence]).await;
    farm.pass(2).await;
    assert_eq!(farm.reap().await.jobs, [job]);
}

pub async fn only_the_last_voice_of_a_session_makes_tokens_for_its_guests(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    let hello = || async {
        let hello = Hello {
            session: alder.session.clone(),
            version: "1".into(),
            slots: 1,
            state: state(1),
            leases: vec![],
        };
        let greeted = farm.store.hello(alder.worker, &hello).await;
        greeted.unwrap().1
    };
    let (old, new) = (hello().await, hello().await);
    let (first, second) = (farm.hash(), farm.hash());
    farm.store
        .set_offers_token(fence, first, new)
        .await
        .unwrap();
    assert!(is_conflict(
        farm.store.set_offers_token(fence, second, old).await
    ));
    assert!(farm.store.job_token(first).await.unwrap().is_some());
    farm.end(&alder, fence, JobStatus::Success).await;
    assert!(is_lost(
        farm.store.set_offers_token(fence, second, new).await
    ));
}

pub async fn a_guests_token_is_for_its_job_while_the_lease_lives(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    let hash = farm.hash();
    farm.store
        .set_offers_token(fence, hash, FIRST)
        .await
        .unwrap();
    assert_eq!(farm.store.job_token(hash).await.unwrap(), Some(job));
    farm.end(&alder, fence, JobStatus::Success).await;
    assert_eq!(farm.store.job_token(hash).await.unwrap(), None);
    assert!(is_lost(
        farm.store.set_offers_token(fence, hash, FIRST).await
    ));
}
