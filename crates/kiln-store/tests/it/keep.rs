//! What ended jobs keep, and for how long.

use kiln_core::{
    farm::{JobId, LogName, UserId},
    job::{JobStatus, TaskStatus},
};
use kiln_store::model::{
    Added, Ended, Held, Moment, NewArtifact, NewChunk, NewPacked, Packed, Removal, What,
};

use crate::farm::{Builder, Farm, new_job};

const DAY: i64 = 24 * 60 * 60;

/// Runs a job with an artifact of so many bytes to its end.
async fn ended(farm: &Farm, builder: &Builder, owner: UserId, artifact: u64) -> JobId {
    let job = farm.submit(owner).await;
    farm.renew(builder, &[]).await;
    let fence = farm.assigned(builder).await;
    let key = builder.key(fence);
    farm.store.begun(key).await.unwrap();
    farm.store
        .set_task(key, "build", TaskStatus::Running)
        .await
        .unwrap();
    let artifact = NewArtifact {
        index: 0,
        path: "a".into(),
        size: artifact,
        sha256: "00".into(),
    };
    if artifact.size > 0 {
        farm.store.add_artifact(key, &artifact).await.unwrap();
    }
    farm.end(builder, fence, JobStatus::Failed).await;
    job
}

async fn pack(farm: &Farm, job: JobId, logs: u64) {
    farm.store.packed(&[Packed { job, logs }]).await.unwrap();
}

async fn to_pack(farm: &Farm, age: i64) -> Vec<Ended> {
    let until = ago(farm, age).await;
    farm.store.to_pack(until, None, 10).await.unwrap()
}

async fn ago(farm: &Farm, seconds: i64) -> Moment {
    Moment(farm.store.now().await.unwrap().0 - seconds * 1_000_000)
}

async fn kept(farm: &Farm, what: What) -> Vec<JobId> {
    let until = ago(farm, -1).await;
    farm.store.kept_until(what, until, 10).await.unwrap()
}

fn removal(job: JobId, what: What) -> Removal {
    Removal {
        job,
        what,
        objects: vec![format!("{what:?}/{job}/")],
    }
}

pub async fn a_job_is_to_be_packed_once_some_time_after_its_end(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = ended(farm, &alder, ann, 7).await;
    let running = farm.submit(ann).await;
    farm.assigned(&alder).await;
    assert_eq!(to_pack(farm, 60).await, []);
    farm.pass(61).await;
    let found = to_pack(farm, 60).await;
    let [
        Ended {
            job: found,
            ended,
            logs,
        },
    ] = &found[..]
    else {
        panic!("{found:?}")
    };
    // The second task never ran.
    assert_eq!(
        (found, &logs[..]),
        (
            &job,
            &[LogName::Job(job), LogName::Task(job, "build".into())][..]
        )
    );
    let after = Some((*ended, job));
    assert_eq!(
        farm.store
            .to_pack(ago(farm, 60).await, after, 10)
            .await
            .unwrap(),
        []
    );
    pack(farm, job, 30).await;
    assert_eq!(to_pack(farm, 60).await, []);
    // Two servers may have packed it, and one that runs can't be.
    pack(farm, job, 99).await;
    pack(farm, running, 99).await;
    assert_eq!(kept(farm, What::Logs).await, [job]);
    assert_eq!(kept(farm, What::Artifacts).await, [job]);
}

pub async fn what_is_removed_is_garbage_and_no_row_refers_to_it(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = ended(farm, &alder, ann, 7).await;
    // Not packed yet: nothing is removed.
    let artifacts = removal(job, What::Artifacts);
    assert_eq!(
        farm.store
            .remove(std::slice::from_ref(&artifacts))
            .await
            .unwrap(),
        0
    );
    pack(farm, job, 30).await;
    assert_eq!(
        farm.store
            .remove(std::slice::from_ref(&artifacts))
            .await
            .unwrap(),
        7
    );
    assert_eq!(
        farm.store
            .remove(std::slice::from_ref(&artifacts))
            .await
            .unwrap(),
        0
    );
    assert!(farm.store.artifacts(&[job]).await.unwrap()[0].pruned);
    assert_eq!(farm.job(job).await.logs_removed, None);
    assert_eq!(farm.store.garbage(10).await.unwrap(), artifacts.objects);
    let logs = removal(job, What::Logs);
    assert_eq!(
        farm.store
            .remove(std::slice::from_ref(&logs))
            .await
            .unwrap(),
        30
    );
    assert!(farm.job(job).await.logs_removed.is_some());
    assert_eq!(kept(farm, What::Logs).await, []);
    // What can't be removed now is tried again later.
    let failed = farm.store.collected(&artifacts.objects, &logs.objects);
    failed.await.unwrap();
    assert!(farm.store.garbage(10).await.unwrap().is_empty());
    farm.pass(11 * 60).await;
    assert_eq!(farm.store.garbage(10).await.unwrap(), logs.objects);
    farm.store.collected(&logs.objects, &[]).await.unwrap();
    assert!(farm.store.garbage(10).await.unwrap().is_empty());
}

pub async fn what_ended_longest_ago_is_the_oldest(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let old = ended(farm, &alder, ann, 7).await;
    farm.pass(90 * DAY).await;
    let new = ended(farm, &alder, ann, 7).await;
    for job in [new, old] {
        pack(farm, job, 30).await;
    }
    let until = ago(farm, 89 * DAY).await;
    let found = farm
        .store
        .kept_until(What::Artifacts, until, 10)
        .await
        .unwrap();
    assert_eq!(found, [old]);
    assert_eq!(kept(farm, What::Artifacts).await, [old, new]);
}

pub async fn who_keeps_too_much_loses_old_artifacts_and_then_old_logs(farm: &Farm) {
    let (ann, bob) = (farm.user("ann").await, farm.user("bob").await);
    let alder = farm.builder("alder", 1).await;
    let mut jobs = Vec::new();
    for owner in [ann, bob, ann, ann] {
        let job = ended(farm, &alder, owner, 1000).await;
        pack(farm, job, 100).await;
        farm.pass(10).await;
        jobs.push(job);
    }
    let beyond = async |limit| farm.store.kept_beyond(limit, 10).await.unwrap();
    let artifacts =
        |of: &[usize]| -> Vec<_> { of.iter().map(|job| (What::Artifacts, jobs[*job])).collect() };
    // Ann keeps 3300 bytes, and Bob 1100.
    assert_eq!(beyond(3300).await, []);
    assert_eq!(beyond(3299).await, artifacts(&[0]));
    assert_eq!(beyond(2300).await, artifacts(&[0]));
    assert_eq!(beyond(2299).await, artifacts(&[0, 2]));
    let all = [
        artifacts(&[0, 2, 3]),
        vec![(What::Logs, jobs[0])],
        artifacts(&[1]),
    ]
    .concat();
    assert_eq!(beyond(299).await[..4], all[..4]);
    assert_eq!(beyond(1099).await, artifacts(&[0, 2, 3, 1]));
    let removals: Vec<_> = artifacts(&[0, 2])
        .into_iter()
        .map(|(what, job)| removal(job, what))
        .collect();
    assert_eq!(farm.store.remove(&removals).await.unwrap(), 2000);
    assert_eq!(beyond(1300).await, []);
    assert_eq!(beyond(1299).await, artifacts(&[3]));
}

pub async fn rows_that_nobody_needs_are_removed_after_a_while(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    ended(farm, &alder, ann, 0).await;
    let idle = farm.another_session(alder.worker);
    farm.hello(&idle, 1, crate::farm::state(0), &[])
        .await
        .unwrap();
    let key = |key: u8| Some((key.to_string(), [key; 32]));
    let submission = |name| kiln_store::model::NewJob {
        idempotency: key(name),
        ..new_job(ann)
    };
    let old = farm.submit_as(submission(1)).await;
    farm.pass(8 * DAY).await;
    farm.renew(&alder, &[]).await;
    let new = farm.submit_as(submission(2)).await;
    let week = ago(farm, 7 * DAY).await;
    // Three events, a key, a session.
    assert_eq!(farm.store.tidy(week).await.unwrap(), 5);
    assert_eq!(farm.store.tidy(week).await.unwrap(), 0);
    // What is younger is what it was: the key names its job.
    assert_eq!(farm.submit_as(submission(2)).await, new);
    assert_ne!(farm.submit_as(submission(1)).await, old);
    // The session that had a job is still known.
    assert_eq!(farm.store.attempts(JobId(1)).await.unwrap().len(), 1);
    farm.hello(&idle, 1, crate::farm::state(0), &[])
        .await
        .unwrap();
}

pub async fn a_duty_is_one_holders_until_it_is_over(farm: &Farm) {
    let take = async |holder| farm.store.take_duty("pack", holder, 60).await.unwrap();
    assert!(take("one").await);
    assert!(!take("two").await);
    assert!(take("one").await);
    assert!(farm.store.take_duty("sweep", "two", 60).await.unwrap());
    farm.pass(61).await;
    assert!(take("two").await);
    assert!(!take("one").await);
    // A clock that was put back makes no duty longer.
    farm.pass(-3600).await;
    assert!(take("one").await);
}

pub async fn a_farm_has_one_name(farm: &Farm) {
    assert_eq!(farm.store.identity("oak").await.unwrap(), "oak");
    assert_eq!(farm.store.identity("elm").await.unwrap(), "oak");
}

pub async fn a_packed_log_takes_the_place_of_its_pieces_at_once(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    let (key, log) = (alder.key(fence), LogName::Job(job));
    let store = &farm.store;
    store.begin_log(key, &log, "first\n").await.unwrap();
    let mut chunk = NewChunk {
        start: 6,
        length: 100,
        sha256: "00".into(),
        object: "logs/0/1/log/6".into(),
        mid_line: false,
    };
    store.add_chunk(key, &log, &chunk).await.unwrap();
    let packed = |stored, object: &str| NewPacked {
        stored,
        object: object.into(),
        length: 42,
    };
    // One that did not see the last piece comes too late.
    let early = store.pack_log(&log, &packed(6, "early")).await.unwrap();
    assert_eq!(early, Added::Elsewhere(106));
    let (one, two) = (packed(106, "one"), packed(106, "two"));
    let (one, two) = tokio::join!(store.pack_log(&log, &one), store.pack_log(&log, &two));
    let done = [one.unwrap(), two.unwrap()];
    assert!(done.contains(&Added::Stored(106)) && done.contains(&Added::Elsewhere(106)));
    let pieces = store.chunks(&log, 50, 9).await.unwrap();
    let winner = if done[0] == Added::Stored(106) {
        "one"
    } else {
        "two"
    };
    let held = Held::Packed {
        key: winner.into(),
        length: 42,
    };
    assert_eq!(pieces.len(), 1);
    assert_eq!(
        (pieces[0].start, pieces[0].length, &pieces[0].held),
        (0, 106, &held)
    );
    assert_eq!(store.chunks(&log, 106, 9).await.unwrap(), []);
    assert_eq!(store.log_end(&log).await.unwrap(), 106);
    // Nothing is added any more.
    chunk.start = 106;
    let more = store.add_chunk(key, &log, &chunk).await.unwrap();
    assert_eq!(more, Added::Elsewhere(106));
    // The piece is garbage once nobody reads it any more.
    farm.pass(599).await;
    assert!(store.garbage(9).await.unwrap().is_empty());
    farm.pass(2).await;
    assert_eq!(store.garbage(9).await.unwrap(), ["logs/0/1/log/6"]);
    let referred = store.referred(&(0..=999)).await.unwrap();
    assert_eq!(referred.objects, [(winner.to_owned(), 42)]);
    // With its log the packed object goes.
    farm.end(&alder, fence, JobStatus::Success).await;
    pack(farm, job, 42).await;
    store.remove(&[removal(job, What::Logs)]).await.unwrap();
    assert_eq!(store.log_end(&log).await.unwrap(), 0);
    assert!(store.referred(&(0..=999)).await.unwrap().objects.is_empty());
    assert_eq!(Vec::from_iter(store.shards(1000).await.unwrap()), [0]);
}
