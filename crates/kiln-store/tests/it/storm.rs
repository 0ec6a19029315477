//! Everything at once.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use kiln_core::{
    farm::{JobId, UserId},
    job::{JobStatus, TaskStatus},
};
use kiln_store::{
    Store, StoreError,
    model::{Changed, Deed, LeaseKey, NewJob, TokenHash},
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
        let fences: Vec<_> = leases.iter().map(|(fence, _)| *fence).collect();
        fine(store.renew(&builder.session, &fences).await);
        for (fence, job) in leases {
            let key = builder.key(fence);
            let number = job.0 + round;
            let lease = store.lease(builder.worker, &builder.session, fence);
            let begun = fine(lease.await).flatten().is_some_and(|lease| lease.begun);
            if number % 5 == 0 && !begun {
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

async fn reap(store: &Store) -> Result<Changed, StoreError> {
    let heard = store.now().await?;
    store.reap(heard).await
}

/// Cancels some, while time passes and the reaper reaps.
async fn disturb(store: Store, jobs: Vec<JobId>) {
    for job in jobs.iter().step_by(9) {
        fine(store.cancel(*job, "cancelled").await);
        fine(testing::pass(&store, 20).await);
        fine(reap(&store).await);
        fine(store.waiting(None, 5).await);
        fine(store.cancel_unserved().await);
    }
    while !all_over(&store, &jobs).await {
        fine(testing::pass(&store, 20).await);
        fine(reap(&store).await);
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

/// Many operations are one transaction: what is wrong with one is its own.
pub async fn of_many_at_once_only_what_is_wrong_is_refused(farm: &Farm) {
    let ann = farm.user("ann").await;
    let nobody = UserId(4711);
    let mut all = JoinSet::new();
    for number in 0..60 {
        let store = farm.store.clone();
        let owner = if number % 7 == 3 { nobody } else { ann };
        all.spawn(async move { (owner, store.submit(&new_job(owner)).await) });
    }
    let mut jobs = BTreeSet::new();
    for (owner, submitted) in all.join_all().await {
        match submitted {
            Ok((job, new)) => {
                assert!(new && job.owner == ann);
                assert!(jobs.insert(job.id), "a number is given once");
            }
            Err(_) => assert_eq!(owner, nobody),
        }
    }
    assert_eq!(jobs.len(), 51);
}

/// What is answered is what is stored.
pub async fn a_submitted_job_is_told_as_it_is_read_later(farm: &Farm) {
    let ann = farm.user("ann").await;
    let mut job = new_job(ann);
    job.note = Some("a note".into());
    job.tags = vec!["a".into(), "b".into()];
    job.priority = -3;
    job.idempotency = Some(("k".into(), [1; 32]));
    for execute in [true, false] {
        job.execute = execute;
        job.idempotency = Some((format!("key {execute}"), [1; 32]));
        let (told, _) = farm.store.submit(&job).await.unwrap();
        assert_eq!(farm.job(told.id).await, told);
        let (again, new) = farm.store.submit(&job).await.unwrap();
        assert_eq!((again, new), (told, false));
    }
}

/// Reports of one lease that come together are taken in their order, each by itself.
pub async fn reports_that_come_together_are_taken_in_their_order(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    let running = |name: &str| Deed::Task(name.into(), TaskStatus::Running);
    let deeds = vec![
        running("build"),
        Deed::Digest("d1".into()),
        Deed::Begun,
        running("build"),
        running("none"),
        Deed::Task("build".into(), TaskStatus::Success),
        Deed::Task("build".into(), TaskStatus::Failed),
        Deed::End {
            status: JobStatus::Failed,
            reason: Some("why".into()),
            tasks: vec![("test".into(), TaskStatus::Failed)],
        },
        Deed::Begun,
    ];
    let report = |deed| farm.store.report(alder.key(fence), deed);
    let taken = join_all(deeds.into_iter().map(report)).await;
    let taken: Vec<bool> = taken.iter().map(Result::is_ok).collect();
    assert_eq!(
        taken,
        [false, true, true, true, false, true, false, true, false]
    );
    let ended = farm.job(job).await;
    assert_eq!(ended.status, JobStatus::Failed);
    assert_eq!(ended.reason.as_deref(), Some("why"));
    assert_eq!(ended.image_digest.as_deref(), Some("d1"));
    let tasks = [
        ("build".to_owned(), TaskStatus::Success),
        ("test".to_owned(), TaskStatus::Failed),
    ];
    assert_eq!(farm.tasks(job).await, tasks);
}

/// Groups of which several jobs end at once are told of once.
pub async fn a_group_whose_jobs_end_at_once_ends_once(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 20).await;
    let mut jobs = Vec::new();
    for _ in 0..20 {
        let job = NewJob {
            execute: false,
            ..new_job(ann)
        };
        jobs.push(farm.submit_as(job).await);
    }
    let group = farm.store.add_group(ann, &jobs, None, &[], true);
    let (group, _) = group.await.unwrap();
    farm.store.assign().await.unwrap();
    let leases = farm.store.leases(&alder.session).await.unwrap();
    assert_eq!(leases.len(), 20);
    let mut all = JoinSet::new();
    for (fence, _) in leases {
        let (store, worker, session) = (farm.store.clone(), alder.worker, alder.session.clone());
        all.spawn(async move {
            let key = LeaseKey {
                worker,
                session: &session,
                fence,
            };
            store.end(key, JobStatus::Success, None, &[]).await.unwrap();
        });
    }
    all.join_all().await;
    let told = testing::outbox(&farm.store).await.unwrap();
    let ends: Vec<_> = told
        .iter()
        .filter(|(kind, _)| kind == "group-ended")
        .collect();
    assert_eq!(ends, [&("group-ended".to_owned(), i64::from(group.id.0))]);
}

/// However many shares wait, those whose turn is next are given what is free.
pub async fn of_many_shares_those_with_the_next_turns_are_served(farm: &Farm) {
    let mut owners = Vec::new();
    for number in 0..60 {
        let owner = farm.user(&format!("user{number}")).await;
        owners.push(owner);
        for _ in 0..2 {
            farm.submit(owner).await;
        }
    }
    let alder = farm.builder("alder", 40).await;
    let mut served: Vec<UserId> = Vec::new();
    for _ in 0..3 {
        while farm.store.assign().await.unwrap().assign {}
        for (fence, job) in farm.store.leases(&alder.session).await.unwrap() {
            served.push(farm.job(job).await.owner);
            farm.end(&alder, fence, JobStatus::Success).await;
        }
    }
    assert_eq!(served.len(), 120);
    for round in [&served[..60], &served[60..]] {
        let round: BTreeSet<UserId> = round.iter().copied().collect();
        assert_eq!(round.len(), 60, "nobody twice before everybody once");
    }
}
