//! Groups of jobs.

use kiln_core::{
    farm::{GroupId, JobId},
    job::JobStatus,
};
use kiln_store::{
    model::{Condition, NewJob, Trigger, TriggerAction},
    testing,
};

use crate::farm::{Farm, is_conflict, is_not_found, new_job};

async fn pending(farm: &Farm, owner: kiln_core::farm::UserId) -> JobId {
    let job = NewJob {
        execute: false,
        ..new_job(owner)
    };
    farm.submit_as(job).await
}

pub async fn a_group_starts_its_jobs_and_tells_of_its_end_once(farm: &Farm) {
    let ann = farm.user("ann").await;
    let jobs = [pending(farm, ann).await, pending(farm, ann).await];
    let triggers = [
        Trigger {
            condition: Condition::Failure,
            action: TriggerAction::Email {
                to: "Ann <ann@example.org>".into(),
                cc: None,
                in_reply_to: Some("<x@y>".into()),
            },
        },
        Trigger {
            condition: Condition::Always,
            action: TriggerAction::Webhook {
                url: "https://example.org/?a=\"b\"".into(),
            },
        },
    ];
    let made = farm
        .store
        .add_group(ann, &jobs, Some("a patch"), &triggers, false);
    let (group, changed) = made.await.unwrap();
    assert!(changed.jobs.is_empty());
    assert_eq!(group.triggers, triggers);
    assert_eq!(group.note.as_deref(), Some("a patch"));
    assert_eq!(
        farm.store.group(group.id).await.unwrap(),
        Some(group.clone())
    );
    assert_eq!(farm.status(jobs[0]).await, JobStatus::Pending);

    let started = farm.store.start_group(group.id).await.unwrap();
    assert_eq!((started.jobs.as_slice(), started.assign), (&jobs[..], true));
    let again = farm.store.start_group(group.id).await.unwrap();
    assert!(again.jobs.is_empty());
    assert!(is_not_found(farm.store.start_group(GroupId(99)).await));
    assert_eq!(farm.store.group(GroupId(99)).await.unwrap(), None);

    let members = farm.store.group_jobs(group.id).await.unwrap();
    assert!(members.iter().all(|job| job.group == Some(group.id)));
    let alder = farm.builder("alder", 1).await;
    let end = || async {
        let told = testing::outbox(&farm.store).await.unwrap();
        told.iter()
            .filter(|(kind, _)| kind == "group-ended")
            .count()
    };
    let fence = farm.assigned(&alder).await;
    farm.end(&alder, fence, JobStatus::Failed).await;
    assert_eq!(end().await, 0);
    farm.store.cancel(jobs[1], "enough").await.unwrap();
    assert_eq!(end().await, 1);
}

pub async fn a_job_is_in_one_group_of_its_owner(farm: &Farm) {
    let (ann, abe) = (farm.user("ann").await, farm.user("abe").await);
    let mine = pending(farm, ann).await;
    let others = pending(farm, abe).await;
    let queued = farm.submit(ann).await;
    let group = async |jobs: &[JobId]| farm.store.add_group(ann, jobs, None, &[], true).await;

    assert!(is_conflict(group(&[]).await));
    assert!(is_not_found(group(&[mine, others]).await));
    assert!(is_not_found(group(&[mine, JobId(99)]).await));
    assert!(is_conflict(group(&[mine, queued]).await));
    // What was refused left nothing.
    assert_eq!(farm.job(mine).await.group, None);
    let (made, changed) = group(&[mine, mine]).await.unwrap();
    assert_eq!((changed.jobs, changed.assign), (vec![mine], true));
    assert_eq!(farm.store.group_jobs(made.id).await.unwrap().len(), 1);
    assert!(is_conflict(group(&[mine]).await));
}
