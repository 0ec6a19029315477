//! A copy of the database that was put back.

use kiln_core::job::JobStatus;
use kiln_store::Restored;

use crate::farm::{Farm, is_lost};

pub async fn no_number_that_may_have_been_given_is_given_again(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 9).await;
    let job = farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    farm.store.restored().await.unwrap();

    // Between the copy and now the farm may have got so far.
    let most = 1_000_000;
    assert!(farm.user("bert").await.0 > ann.0 + most);
    let birch = farm.builder("birch", 9).await;
    assert!(i64::from(birch.worker.0) > i64::from(alder.worker.0) + i64::from(most));
    let next = farm.submit(ann).await;
    assert!(next.0 > job.0 + most);
    let given = farm.assigned(&alder).await;
    assert!(given.0 > fence.0 + i64::from(most));
}

pub async fn what_ran_when_the_copy_was_made_has_ended_or_waits_again(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 2).await;
    let begun = farm.submit(ann).await;
    let running = farm.assigned(&alder).await;
    farm.store.begun(alder.key(running)).await.unwrap();
    let prepared = farm.submit(ann).await;
    let preparing = farm.assigned(&alder).await;
    let waiting = farm.submit(ann).await;

    let restored = farm.store.restored().await.unwrap();
    let expected = Restored {
        failed: 1,
        queued: 1,
    };
    assert_eq!(restored, expected);
    for lease in [running, preparing] {
        assert!(is_lost(farm.store.holds(alder.key(lease)).await));
    }
    for (job, status) in [
        (begun, JobStatus::Failed),
        (prepared, JobStatus::Queued),
        (waiting, JobStatus::Queued),
    ] {
        assert_eq!(farm.job(job).await.status, status, "{job:?}");
    }
    let reason = farm.job(begun).await.reason.unwrap();
    assert!(reason.contains("backup"), "{reason}");
    // Once more changes nothing: there is nothing left that ran.
    let again = farm.store.restored().await.unwrap();
    assert_eq!(
        again,
        Restored {
            failed: 0,
            queued: 0
        }
    );
}
