//! Jobs from submit to their end.

use kiln_core::{
    farm::{JobId, UserId, Visibility},
    job::{JobStatus, TaskStatus},
};
use kiln_store::{
    model::{NewArtifact, NewJob, Source},
    testing,
};

use crate::farm::{Farm, is_conflict, is_lost, is_not_found, new_job};

pub async fn a_job_goes_from_submit_to_success(farm: &Farm) {
    let ann = farm.user("ann").await;
    let job = farm.submit(ann).await;
    let alder = farm.builder("alder", 1).await;
    assert_eq!(farm.status(job).await, JobStatus::Queued);

    let assigned = farm.store.assign().await.unwrap();
    assert_eq!(assigned.jobs, [job]);
    assert_eq!(assigned.sessions, std::slice::from_ref(&alder.session));
    let leases = farm.store.leases(&alder.session).await.unwrap();
    let [(fence, of)] = leases[..] else {
        panic!("{leases:?}");
    };
    assert_eq!(of, job);
    let lease = farm.store.lease(alder.worker, &alder.session, fence);
    let lease = lease.await.unwrap().unwrap();
    assert_eq!((lease.fence, lease.attempt, lease.begun), (fence, 1, false));
    assert_eq!(lease.owner_name, "ann");
    assert_eq!(lease.job, farm.job(job).await);
    let key = alder.key(fence);

    farm.store.begun(key).await.unwrap();
    for task in ["build", "test"] {
        for status in [TaskStatus::Running, TaskStatus::Success] {
            let changed = farm.store.set_task(key, task, status).await.unwrap();
            assert_eq!(changed.jobs, [job]);
        }
    }
    let ended = farm.store.end(key, JobStatus::Success, None, &[]).await;
    let ended = ended.unwrap();
    assert_eq!(ended.ended, [job]);
    assert!(ended.assign, "its slot is free");

    let done = farm.job(job).await;
    assert_eq!(done.status, JobStatus::Success);
    assert_eq!((done.attempts, done.worker.as_deref()), (1, Some("alder")));
    assert!(done.created <= done.queued.unwrap());
    assert!(done.queued <= done.started && done.started <= done.ended);
    let attempt = farm.store.attempts(job).await.unwrap().remove(0);
    assert!(attempt.begun.is_some() && attempt.ended.is_some());
    let told = testing::outbox(&farm.store).await.unwrap();
    let id = i64::from(job.0);
    assert_eq!(
        told,
        [("job-submitted".into(), id), ("job-ended".into(), id)]
    );
    let counts = farm.store.counts().await.unwrap();
    assert_eq!((counts.queued, counts.running), (0, 0));
    assert_eq!((counts.submitted, counts.sessions, counts.slots), (1, 1, 1));
}

fn keyed(owner: UserId, key: &str, hash: u8) -> NewJob {
    NewJob {
        idempotency: Some((key.into(), [hash; 32])),
        ..new_job(owner)
    }
}

pub async fn a_submission_with_the_same_key_is_the_same_job(farm: &Farm) {
    let (ann, abe) = (farm.user("ann").await, farm.user("abe").await);
    let (first, new) = farm.store.submit(&keyed(ann, "k", 1)).await.unwrap();
    assert!(new);
    let (again, new) = farm.store.submit(&keyed(ann, "k", 1)).await.unwrap();
    assert_eq!((again.id, new), (first.id, false));
    // It is the owner's own key.
    let (others, new) = farm.store.submit(&keyed(abe, "k", 1)).await.unwrap();
    assert!(new && others.id != first.id);
    assert_eq!(farm.store.counts().await.unwrap().queued, 2);
}

pub async fn the_same_key_for_another_job_is_refused(farm: &Farm) {
    let ann = farm.user("ann").await;
    farm.store.submit(&keyed(ann, "k", 1)).await.unwrap();
    assert!(is_conflict(farm.store.submit(&keyed(ann, "k", 2)).await));
}

pub async fn a_pending_job_waits_for_its_start(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = NewJob {
        execute: false,
        ..new_job(ann)
    };
    let job = farm.submit_as(job).await;
    farm.store.assign().await.unwrap();
    assert_eq!(farm.status(job).await, JobStatus::Pending);
    assert!(farm.held(&alder).await.is_empty());
    assert!(farm.store.start(job).await.unwrap().assign);
    assert!(is_conflict(farm.store.start(job).await));
    assert!(is_not_found(farm.store.start(JobId(99)).await));
    farm.store.assign().await.unwrap();
    assert_eq!(farm.held(&alder).await, [job]);
}

pub async fn a_cancel_ends_a_job_in_every_state_before_its_end(farm: &Farm) {
    let ann = farm.user("ann").await;
    let pending = NewJob {
        execute: false,
        ..new_job(ann)
    };
    let pending = farm.submit_as(pending).await;
    let running = farm.submit(ann).await;
    let alder = farm.builder("alder", 1).await;
    let fence = farm.assigned(&alder).await;
    let queued = farm.submit(ann).await;
    farm.store.begun(alder.key(fence)).await.unwrap();
    let task = farm
        .store
        .set_task(alder.key(fence), "build", TaskStatus::Running);
    task.await.unwrap();

    for job in [pending, queued, running] {
        let changed = farm.store.cancel(job, "cancelled by ann").await.unwrap();
        assert_eq!((&changed.ended, &changed.jobs), (&vec![job], &vec![job]));
        let told = if job == running {
            vec![alder.session.clone()]
        } else {
            Vec::new()
        };
        assert_eq!(
            changed.sessions, told,
            "the worker that has it, and no other"
        );
        let job = farm.job(job).await;
        assert_eq!(job.status, JobStatus::Cancelled);
        assert_eq!(job.reason.as_deref(), Some("cancelled by ann"));
        assert!(is_conflict(farm.store.cancel(job.id, "again").await));
    }
    assert!(is_not_found(farm.store.cancel(JobId(99), "x").await));
    let tasks = farm.tasks(running).await;
    assert_eq!(tasks[0].1, TaskStatus::Failed);
    assert_eq!(tasks[1].1, TaskStatus::Skipped);
    assert!(farm.held(&alder).await.is_empty());
    let late = farm
        .store
        .end(alder.key(fence), JobStatus::Success, None, &[]);
    assert!(is_lost(late.await));
}

pub async fn a_job_ends_once(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    let key = alder.key(fence);
    for no_end in [JobStatus::Pending, JobStatus::Queued, JobStatus::Running] {
        assert!(is_conflict(farm.store.end(key, no_end, None, &[]).await));
    }
    let reason = Some("task build failed");
    farm.store
        .end(key, JobStatus::Failed, reason, &[])
        .await
        .unwrap();
    // The answer was lost: the same words change nothing.
    let again = farm.store.end(key, JobStatus::Failed, reason, &[]).await;
    assert!(again.unwrap().ended.is_empty());
    // Others are too late.
    let other = farm.store.end(key, JobStatus::Success, None, &[]).await;
    assert!(is_lost(other));
    assert!(is_conflict(farm.store.cancel(job, "late").await));
    farm.pass(100_000).await;
    assert!(farm.reap().await.ended.is_empty());
    assert_eq!(farm.job(job).await.reason.as_deref(), reason);
}

pub async fn the_end_of_a_job_ends_its_tasks(farm: &Farm) {
    use TaskStatus::{Failed, Pending, Running, Skipped, Success};
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 9).await;
    // What was told before, what the end says, what becomes of it.
    let cases: [(&[TaskStatus], Option<TaskStatus>, TaskStatus); 9] = [
        (&[], None, Skipped),
        (&[], Some(Skipped), Skipped),
        (&[], Some(Success), Success),
        (&[], Some(Failed), Failed),
        (&[], Some(Pending), Skipped),
        (&[Running], None, Failed),
        (&[Running], Some(Success), Success),
        (&[Running], Some(Skipped), Failed),
        (&[Running, Success], Some(Failed), Success),
    ];
    for (before, end, after) in cases {
        let job = farm.submit(ann).await;
        let fence = farm.assigned(&alder).await;
        let key = alder.key(fence);
        farm.store.begun(key).await.unwrap();
        for status in before {
            farm.store.set_task(key, "build", *status).await.unwrap();
        }
        let ends: Vec<_> = end
            .map(|status| ("build".into(), status))
            .into_iter()
            .collect();
        let ended = farm.store.end(key, JobStatus::Failed, None, &ends).await;
        ended.unwrap();
        assert_eq!(farm.tasks(job).await[0].1, after, "{before:?} {end:?}");
    }
}

pub async fn a_task_goes_only_where_the_diagram_leads(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    let key = alder.key(fence);
    farm.store.begun(key).await.unwrap();
    let skipping = farm.store.set_task(key, "build", TaskStatus::Success);
    assert!(is_conflict(skipping.await));
    let unknown = farm.store.set_task(key, "nothing", TaskStatus::Running);
    assert!(is_not_found(unknown.await));
    farm.store
        .set_task(key, "build", TaskStatus::Running)
        .await
        .unwrap();
    farm.store
        .set_task(key, "build", TaskStatus::Failed)
        .await
        .unwrap();
    let back = farm.store.set_task(key, "build", TaskStatus::Running);
    assert!(is_conflict(back.await));
    let task = farm.store.task(farm.first_task(job).await).await.unwrap();
    assert_eq!(task.unwrap().status, TaskStatus::Failed);
}

pub async fn pages_of_jobs_are_complete_and_newest_first(farm: &Farm) {
    let (ann, abe) = (farm.user("ann").await, farm.user("abe").await);
    let mut all = Vec::new();
    for number in 0..5 {
        let visibility = if number % 2 == 0 {
            Visibility::Public
        } else {
            Visibility::Private
        };
        let job = NewJob {
            visibility,
            ..new_job(ann)
        };
        all.insert(0, farm.submit_as(job).await);
        farm.submit(abe).await;
    }
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = farm.store.jobs_of(ann, before, 2, false).await.unwrap();
        assert!(page.jobs.len() <= 2);
        seen.extend(page.jobs.iter().map(|job| job.id));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen, all);
    let public = farm.store.jobs_of(ann, None, 3, true).await.unwrap();
    // A list of mebibytes would be one of the farm's memory.
    assert!(public.jobs.iter().all(|job| job.manifest.is_none()));
    let manifest = farm.store.manifest(all[0]).await.unwrap();
    assert_eq!(manifest, new_job(ann).manifest);
    let ids: Vec<_> = public.jobs.iter().map(|job| job.id).collect();
    assert_eq!(ids, [all[0], all[2], all[4]]);
    assert_eq!(public.next, None, "a full page may be the last one");
}

pub async fn who_sees_a_job_can_be_changed(farm: &Farm) {
    let ann = farm.user("ann").await;
    let job = farm.submit(ann).await;
    for visibility in [
        Visibility::Public,
        Visibility::Private,
        Visibility::Unlisted,
    ] {
        let changed = farm.store.set_visibility(job, visibility).await.unwrap();
        assert_eq!(changed.visibility, visibility);
        assert_eq!(changed, farm.job(job).await);
    }
    let nothing = farm.store.set_visibility(JobId(99), Visibility::Public);
    assert!(is_not_found(nothing.await));
}

pub async fn sources_artifacts_and_the_image_are_kept(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 1).await;
    let job = farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    let key = alder.key(fence);
    farm.store.set_digest(key, "d1").await.unwrap();
    farm.store.add_source(key, 1, "c1").await.unwrap();
    farm.store.add_source(key, 0, "c0").await.unwrap();
    let artifact = NewArtifact {
        index: 0,
        path: "out/kiln.deb".into(),
        size: 5 << 40,
        sha256: "ab".repeat(32),
    };
    let id = farm.store.add_artifact(key, &artifact).await.unwrap();

    assert_eq!(farm.job(job).await.image_digest.as_deref(), Some("d1"));
    let source = |index, commit: &str| Source {
        index,
        commit: commit.into(),
    };
    let sources = farm.store.sources(job).await.unwrap();
    assert_eq!(sources, [source(0, "c0"), source(1, "c1")]);
    let kept = farm.store.artifact(id).await.unwrap().unwrap();
    assert_eq!((kept.size, kept.path.as_str()), (5 << 40, "out/kiln.deb"));
    assert_eq!(farm.store.artifacts(&[job]).await.unwrap(), [kept]);
    assert!(farm.store.artifacts(&[]).await.unwrap().is_empty());
}

pub async fn the_largest_texts_and_strange_characters_come_back_as_they_were(farm: &Farm) {
    let ann = farm.user("ann").await;
    let asked = NewJob {
        manifest: "# \u{1F525}'\"\\%$1\n".repeat(50_000),
        note: Some("né\n\t`'; DROP TABLE jobs; --".into()),
        tags: vec!["a\"b".into(), "\u{202e}".into(), String::new()],
        priority: -7,
        secrets: true,
        ..new_job(ann)
    };
    let job = farm.submit_as(asked.clone()).await;
    let job = farm.job(job).await;
    assert_eq!(job.manifest.as_ref(), Some(&asked.manifest));
    assert_eq!((job.note, job.tags), (asked.note, asked.tags));
    assert_eq!((job.priority, job.secrets), (-7, true));
    assert_eq!(job.requirements, asked.requirements);
}
