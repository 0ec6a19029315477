//! Who gets which slot, and why the others wait.

use kiln_core::{
    farm::{Requirements, SessionId, limits},
    job::JobStatus,
};
use kiln_store::{
    StoreError,
    model::{Mood, NewJob, SessionState, WaitReason},
    testing,
};

use crate::farm::{Builder, Farm, IMAGE, image, is_conflict, new_job, state, wanting};

pub async fn a_long_queue_delays_another_share_by_one_turn(farm: &Farm) {
    let (bot, ann) = (farm.user("bot").await, farm.user("ann").await);
    let alder = farm.builder("alder", 1).await;
    for _ in 0..30 {
        farm.submit(bot).await;
    }
    let running = farm.assigned(&alder).await;
    let anns = farm.submit(ann).await;
    farm.end(&alder, running, JobStatus::Success).await;
    farm.assigned(&alder).await;
    assert_eq!(farm.held(&alder).await, [anns]);

    // A share below an owner's counts by itself.
    let job = NewJob {
        share: Some("nightly".into()),
        ..new_job(ann)
    };
    farm.submit_as(job).await;
    let fence = farm.assigned(&alder).await;
    farm.end(&alder, fence, JobStatus::Success).await;
    let fence = farm.assigned(&alder).await;
    let lease = farm.store.lease(alder.worker, &alder.session, fence).await;
    assert_eq!(lease.unwrap().unwrap().job.owner, ann);
}

pub async fn a_share_has_its_cap(farm: &Farm) {
    let (ann, abe) = (farm.user("ann").await, farm.user("abe").await);
    farm.store.set_share_cap(Some(2)).await.unwrap();
    let alder = farm.builder("alder", 5).await;
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(farm.submit(ann).await);
    }
    farm.store.assign().await.unwrap();
    assert_eq!(farm.held(&alder).await, jobs[..2]);
    let others = farm.submit(abe).await;
    farm.store.assign().await.unwrap();
    assert_eq!(farm.held(&alder).await, [jobs[0], jobs[1], others]);
    let reason = farm.store.wait_reason(jobs[2]).await.unwrap();
    assert_eq!(reason, Some(WaitReason::ShareCap(2)));
    farm.store.set_share_cap(None).await.unwrap();
    farm.store.assign().await.unwrap();
    assert_eq!(farm.held(&alder).await.len(), 5);
}

pub async fn what_a_share_gets_elsewhere_leaves_its_slot_to_another(farm: &Farm) {
    farm.store.set_share_cap(Some(1)).await.unwrap();
    let mut jobs = Vec::new();
    for (name, images) in [
        ("ann", &["alpine/edge", IMAGE][..]),
        ("bob", &[IMAGE]),
        ("cyd", &[IMAGE]),
    ] {
        let owner = farm.user(name).await;
        for image in images {
            let job = NewJob {
                requirements: wanting(image),
                ..new_job(owner)
            };
            jobs.push(farm.submit_as(job).await);
        }
    }
    let alder = farm.builder("alder", 2).await;
    let birch = farm.store.add_worker("birch", farm.hash()).await.unwrap();
    let birch = farm.another_session(birch.id);
    let mut other = state(1);
    other.labels.images = vec![image("alpine/edge")];
    farm.hello(&birch, 1, other, &[]).await.unwrap();
    while farm.store.assign().await.unwrap().assign {}
    assert_eq!(farm.held(&birch).await, [jobs[0]]);
    assert_eq!(farm.held(&alder).await, jobs[2..]);
}

pub async fn a_share_has_only_so_many_kinds_of_jobs_queued(farm: &Farm) {
    let ann = farm.user("ann").await;
    let of_kind = |number: u32| NewJob {
        requirements: Requirements::new(IMAGE.into(), None, &[format!("kind={number}")]).unwrap(),
        ..new_job(ann)
    };
    for number in 0..limits::KINDS {
        farm.submit_as(of_kind(number)).await;
    }
    let refused = farm.store.submit(&of_kind(limits::KINDS)).await;
    assert!(is_conflict(refused));
    // More of a kind, and others' jobs, are as welcome as ever.
    farm.submit_as(of_kind(0)).await;
    let bob = farm.user("bob").await;
    farm.submit(bob).await;
}

pub async fn priority_comes_first_and_then_age(farm: &Farm) {
    let ann = farm.user("ann").await;
    let mut jobs = Vec::new();
    for priority in [0, -1, 5, 0, 5] {
        let job = NewJob {
            priority,
            ..new_job(ann)
        };
        jobs.push(farm.submit_as(job).await);
    }
    let alder = farm.builder("alder", 5).await;
    farm.store.assign().await.unwrap();
    let order = [2, 4, 0, 3, 1].map(|place| jobs[place]);
    assert_eq!(farm.held(&alder).await, order);
}

pub async fn what_nobody_serves_blocks_nobody(farm: &Farm) {
    let ann = farm.user("ann").await;
    for image in ["guix", "plan9"] {
        let job = NewJob {
            requirements: wanting(image),
            priority: 100,
            ..new_job(ann)
        };
        farm.submit_as(job).await;
    }
    let labelled = NewJob {
        requirements: Requirements::new(IMAGE.into(), None, &["gpu=yes"]).unwrap(),
        ..new_job(ann)
    };
    farm.submit_as(labelled).await;
    let foreign = NewJob {
        requirements: Requirements::new::<&str>(IMAGE.into(), Some("aarch64".into()), &[]).unwrap(),
        ..new_job(ann)
    };
    farm.submit_as(foreign).await;
    let job = farm.submit(ann).await;
    let alder = farm.builder("alder", 9).await;
    farm.store.assign().await.unwrap();
    assert_eq!(farm.held(&alder).await, [job]);
}

pub async fn a_lost_job_keeps_its_age(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let (first, _second) = (farm.submit(ann).await, farm.submit(ann).await);
    let fence = farm.assigned(&alder).await;
    farm.store
        .give_back(alder.key(fence), "full", true)
        .await
        .unwrap();
    farm.store.assign().await.unwrap();
    assert_eq!(farm.held(&alder).await, [first]);
}

pub async fn paused_draining_unwell_and_absent_workers_get_nothing(farm: &Farm) {
    let ann = farm.user("ann").await;
    let job = farm.submit(ann).await;
    let alder = farm.builder("alder", 1).await;
    let nothing = async |why: &str| {
        farm.store.assign().await.unwrap();
        assert!(farm.held(&alder).await.is_empty(), "{why}");
    };
    farm.store
        .pause_worker("alder", Some("rain"))
        .await
        .unwrap();
    nothing("paused").await;
    farm.store.pause_worker("alder", None).await.unwrap();
    for mood in [Mood::Draining, Mood::Unwell("no disk".into())] {
        let told = SessionState {
            mood: mood.clone(),
            ..state(1)
        };
        farm.store.set_state(&alder.session, &told).await.unwrap();
        nothing("in no mood").await;
        assert_eq!(farm.store.sessions().await.unwrap()[0].mood, mood);
    }
    farm.store
        .set_state(&alder.session, &state(0))
        .await
        .unwrap();
    nothing("without room").await;
    farm.store
        .set_state(&alder.session, &state(1))
        .await
        .unwrap();
    farm.pass(31).await;
    nothing("absent").await;
    assert!(farm.store.sessions().await.unwrap().is_empty());
    farm.renew(&alder, &[]).await;
    farm.store.assign().await.unwrap();
    assert_eq!(farm.held(&alder).await, [job]);
    let nobody = SessionId::new([99; 16]);
    assert!(farm.store.set_state(&nobody, &state(1)).await.is_err());
}

pub async fn a_slot_is_given_once_and_capacity_holds(farm: &Farm) {
    let ann = farm.user("ann").await;
    for _ in 0..9 {
        farm.submit(ann).await;
    }
    let alder = farm.builder("alder", 3).await;
    let birch = farm.builder("birch", 4).await;
    // Room for one more than it has, though it has four slots; and a worker that says
    // more than its slots is not believed.
    farm.store
        .set_state(&birch.session, &state(1))
        .await
        .unwrap();
    farm.store
        .set_state(&alder.session, &state(100))
        .await
        .unwrap();
    for _ in 0..3 {
        farm.store.assign().await.unwrap();
        assert_eq!(farm.held(&alder).await.len(), 3);
        assert_eq!(farm.held(&birch).await.len(), 1);
    }
    farm.store
        .set_state(&birch.session, &state(2))
        .await
        .unwrap();
    farm.store.assign().await.unwrap();
    assert_eq!(farm.held(&birch).await.len(), 2);
}

pub async fn a_pass_gives_a_few_dozen_and_asks_for_another(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 100).await;
    for _ in 0..60 {
        farm.submit(ann).await;
    }
    assert!(farm.store.assign().await.unwrap().assign);
    assert!(!farm.store.assign().await.unwrap().assign);
    assert_eq!(farm.held(&alder).await.len(), 60);
}

pub async fn a_job_is_given_only_after_what_comes_before(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 2).await;
    let jobs = [farm.submit(ann).await, farm.submit(ann).await];
    let told = std::sync::Mutex::new(Vec::new());
    let refused = farm.store.assign_after(|given| {
        let mut told = told.lock().unwrap();
        told.push(given);
        let second = told.len() == 2;
        async move {
            match second {
                true => Err(StoreError::Conflict("the disk is full".into())),
                false => Ok(None),
            }
        }
    });
    assert!(is_conflict(refused.await));
    assert!(farm.held(&alder).await.is_empty(), "all or none");
    for (given, job) in told.lock().unwrap().iter().zip(jobs) {
        assert_eq!((given.job, given.attempt), (job, 1));
        assert_eq!(given.worker, "alder");
        assert_eq!(given.manifest, new_job(ann).manifest);
    }
    let done = farm
        .store
        .assign_after(|_| std::future::ready(Ok(None)))
        .await;
    assert_eq!(done.unwrap().jobs, jobs);
}

pub async fn each_reason_to_wait_is_told(farm: &Farm) {
    let ann = farm.user("ann").await;
    let job = farm.submit(ann).await;
    let reason = async || farm.store.wait_reason(job).await.unwrap().unwrap();
    assert_eq!(reason().await, WaitReason::NoImage);
    let alder = farm.builder("alder", 1).await;
    assert_eq!(reason().await, WaitReason::Next);
    let labelled = NewJob {
        requirements: Requirements::new(IMAGE.into(), None, &["gpu=yes"]).unwrap(),
        ..new_job(ann)
    };
    let labelled = farm.submit_as(labelled).await;
    let its = farm.store.wait_reason(labelled).await.unwrap();
    assert_eq!(its, Some(WaitReason::NoLabels));

    let tell = async |state: SessionState| {
        farm.store.set_state(&alder.session, &state).await.unwrap();
    };
    let unwell = SessionState {
        mood: Mood::Unwell("no disk".into()),
        ..state(1)
    };
    tell(unwell).await;
    let none = WaitReason::NoneReady("alder is unwell: no disk".into());
    assert_eq!(reason().await, none);
    let short = SessionState {
        short_of: Some("memory".into()),
        ..state(0)
    };
    tell(short).await;
    let short = WaitReason::ShortOf("alder is short of memory".into());
    assert_eq!(reason().await, short);
    tell(state(1)).await;
    busy(farm, &alder).await;
    assert_eq!(farm.store.wait_reason(job).await.unwrap(), None, "it runs");
}

/// The queue when one slot is taken by the oldest job.
async fn busy(farm: &Farm, alder: &Builder) {
    farm.assigned(alder).await;
    let (abe, ann) = (
        farm.user("abe").await,
        farm.store.user_by_name("ann").await.unwrap().unwrap().id,
    );
    let (second, third) = (farm.submit(ann).await, farm.submit(ann).await);
    let abes = farm.submit(abe).await;
    let waiting = farm.store.waiting(None, 10).await.unwrap();
    let told: Vec<_> = waiting
        .iter()
        .filter(|one| one.reason != WaitReason::NoLabels)
        .map(|one| (one.job.id, one.owner_name.as_str(), one.reason.clone()))
        .collect();
    let expected = [
        (second, "ann", WaitReason::Busy(2)),
        (third, "ann", WaitReason::Busy(3)),
        (abes, "abe", WaitReason::Busy(1)),
    ];
    assert_eq!(told, expected);
    assert!(waiting.iter().all(|one| one.job.manifest.is_none()));
    let own = farm.store.waiting(Some(abe), 10).await.unwrap();
    assert_eq!(own.len(), 1);
    assert_eq!(farm.store.waiting(None, 1).await.unwrap().len(), 1);
}

const WEEK: i64 = limits::UNSERVED_DAYS as i64 * 24 * 60 * 60;

/// A farm that looks every few minutes, with a worker that is there.
async fn go_on(farm: &Farm, alder: &Builder, seconds: u32) {
    // Each look counts five minutes at most.
    for _ in 0..seconds / 300 {
        farm.pass(300).await;
        farm.renew(alder, &[]).await;
        farm.store.cancel_unserved().await.unwrap();
    }
}

pub async fn what_nobody_serves_for_a_week_is_cancelled(farm: &Farm) {
    let ann = farm.user("ann").await;
    let job = NewJob {
        requirements: wanting("guix"),
        ..new_job(ann)
    };
    let served = farm.submit(ann).await;
    let old = farm.submit_as(job.clone()).await;
    farm.store.cancel_unserved().await.unwrap();
    // Nearly a week, without looking at each five minutes of it.
    testing::unserved(&farm.store, WEEK - 600).await.unwrap();
    farm.pass(WEEK - 1200).await;
    let young = farm.submit_as(job).await;
    let alder = farm.builder("alder", 1).await;
    farm.store
        .pause_worker("alder", Some("rain"))
        .await
        .unwrap();
    go_on(farm, &alder, 900).await;
    assert_eq!(farm.status(old).await, JobStatus::Queued);
    go_on(farm, &alder, 600).await;
    assert_eq!(farm.status(old).await, JobStatus::Cancelled);
    assert!(farm.job(old).await.reason.unwrap().contains("7 days"));
    assert_eq!(farm.status(young).await, JobStatus::Queued);
    // A worker that is paused could serve it; its owner sees that it is.
    assert_eq!(farm.status(served).await, JobStatus::Queued);
}

pub async fn a_farm_that_was_off_cancels_nothing(farm: &Farm) {
    let ann = farm.user("ann").await;
    let job = farm.submit(ann).await;
    farm.store.cancel_unserved().await.unwrap();
    farm.pass(2 * WEEK).await;
    let changed = farm.store.cancel_unserved().await.unwrap();
    assert!(changed.ended.is_empty());
    assert_eq!(farm.status(job).await, JobStatus::Queued);
}

pub async fn heads_are_found_by_their_index(farm: &Farm) {
    let plan = testing::plan_of_heads(&farm.store).await.unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("jobs_runnable"), "{plan}");
    assert!(!plan.to_lowercase().contains("temp b-tree"), "{plan}");
    assert!(!plan.contains("Sort"), "{plan}");
}

pub async fn images_are_remembered(farm: &Farm) {
    let alder = farm.builder("alder", 1).await;
    let mut told = state(1);
    told.labels.images = vec![image("debian/trixie"), image("debian/trixie")];
    farm.store.set_state(&alder.session, &told).await.unwrap();
    let images = farm.store.images().await.unwrap();
    let known: Vec<_> = images
        .iter()
        .map(|one| (one.name.as_str(), one.here))
        .collect();
    assert_eq!(known, [(IMAGE, false), ("debian/trixie", true)]);
    farm.pass(31).await;
    let images = farm.store.images().await.unwrap();
    assert!(images.iter().all(|image| !image.here));
}
