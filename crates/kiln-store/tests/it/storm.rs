//! Everything at once.

use std::collections::BTreeSet;

use kiln_core::{
    farm::{JobId, UserId},
    job::{JobStatus, TaskStatus},
};
use kiln_store::{
    Store, StoreError,
    model::{NewJob, TokenHash},
    testing,
};
use tokio::task::JoinSet;

use crate::farm::{Builder, Farm, new_job, state};

const BUILDERS: usize = 4;
const JOBS: usize = 60;

/// What the others did first is no failure; that the database fails is.
fn fine<T>(result: Result<T, StoreError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(StoreError::Unavailable(error)) => panic!("the database failed: {error}"),
        Err(_) => None,
    }
}

/// A worker that begins, ends, gives back or forgets what it gets, until all is over.
async fn work(store: Store, builder: Builder, jobs: Vec<JobId>) {
    for round in 0.. {
        fine(store.assign().await);
        let leases = fine(store.leases(&builder.session).await).unwrap();
        let fences: Vec<_> = leases.iter().map(|lease| lease.fence).collect();
        fine(store.renew(&builder.session, &fences).await);
        for lease in leases {
            let key = builder.key(lease.fence);
            let number = lease.job.id.0 + round;
            if number % 5 == 0 && !lease.begun {
                fine(store.give_back(key, "full", number % 2 == 0).await);
                continue;
            }
            fine(store.begun(key).await);
            fine(store.set_task(key, "build", TaskStatus::Running).await);
            if number % 7 != 0 {
                // Twice at once: the answer to the first was lost.
                let again = store.end(key, JobStatus::Success, None, &[]);
                let (first, second) =
                    tokio::join!(store.end(key, JobStatus::Success, None, &[]), again);
                assert_eq!(fine(first).is_some(), fine(second).is_some());
            }
        }
        if all_over(&store, &jobs).await {
            return;
        }
    }
}

async fn all_over(store: &Store, jobs: &[JobId]) -> bool {
    for job in jobs {
        let job = fine(store.job(*job).await).flatten().expect("it is there");
        if !job.status.is_terminal() {
            return false;
        }
    }
    true
}

/// Cancels some, while time passes and the reaper reaps.
async fn disturb(store: Store, jobs: Vec<JobId>) {
    for job in jobs.iter().step_by(9) {
        fine(store.cancel(*job, "cancelled").await);
        fine(testing::pass(&store, 20).await);
        fine(store.reap(true).await);
        fine(store.waiting(None, 5).await);
        fine(store.cancel_unserved().await);
    }
    while !all_over(&store, &jobs).await {
        fine(testing::pass(&store, 20).await);
        fine(store.reap(true).await);
    }
}

pub async fn whatever_happens_at_once_each_job_ends_once(farm: &Farm) {
    let owners = [farm.user("ann").await, farm.user("abe").await];
    let mut jobs = Vec::new();
    for number in 0..JOBS {
        jobs.push(farm.submit(owners[number % 2]).await);
    }
    let mut all = JoinSet::new();
    for number in 0..BUILDERS {
        let name = format!("builder{number}");
        let builder = farm.builder(&name, 3).await;
        let store = match number % 2 {
            0 => farm.store.clone(),
            _ => farm.another_store().await,
        };
        all.spawn(work(store, builder, jobs.clone()));
    }
    all.spawn(disturb(farm.store.clone(), jobs.clone()));
    let done = tokio::time::timeout(std::time::Duration::from_secs(240), all.join_all());
    done.await.expect("every job ends");

    farm.agrees_with_itself().await;
    let told = testing::outbox(&farm.store).await.unwrap();
    let ended = told.iter().filter(|(kind, _)| kind == "job-ended").count();
    assert_eq!(ended, JOBS);
    let counts = farm.store.counts().await.unwrap();
    assert_eq!((counts.queued, counts.running), (0, 0));
    let worked = farm.store.job(jobs[1]).await.unwrap().unwrap();
    assert!(worked.status.is_terminal());
    // A hello after all that is answered.
    let name = farm
        .store
        .add_worker("late", TokenHash([200; 32]))
        .await
        .unwrap();
    let late = farm.another_session(name.id);
    farm.hello(&late, 1, state(1), &[]).await.unwrap();
}

pub async fn many_submissions_with_one_key_are_one_job(farm: &Farm) {
    let ann = farm.user("ann").await;
    let keyed = |owner: UserId| NewJob {
        idempotency: Some(("k".into(), [1; 32])),
        ..new_job(owner)
    };
    let mut all = JoinSet::new();
    for _ in 0..20 {
        let (store, job) = (farm.another_store().await, keyed(ann));
        all.spawn(async move { store.submit(&job).await.unwrap() });
    }
    let made = all.join_all().await;
    let ids: BTreeSet<JobId> = made.iter().map(|(job, _)| job.id).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(made.iter().filter(|(_, new)| *new).count(), 1);
}

/// As when a client goes away in the middle of its request.
pub async fn an_operation_that_is_dropped_midway_leaves_nothing_and_blocks_nobody(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 200).await;
    let mut all = JoinSet::new();
    for number in 0..100u64 {
        let store = farm.store.clone();
        let session = alder.session.clone();
        let midway = std::time::Duration::from_micros(number * 97 % 5000);
        all.spawn(async move {
            let all_of_it = async {
                let (job, _) = store.submit(&new_job(ann)).await?;
                store.assign().await?;
                store.cancel(job.id, "cancelled").await?;
                store.leases(&session).await
            };
            fine(
                tokio::time::timeout(midway, all_of_it)
                    .await
                    .unwrap_or(Ok(Vec::new())),
            );
        });
    }
    all.join_all().await;
    farm.agrees_with_itself().await;
    let job = farm.submit(ann).await;
    while farm.store.assign().await.unwrap().assign {}
    assert!(farm.held(&alder).await.contains(&job));
}
