//! Users, tokens, workers' registrations.

use kiln_core::farm::{Grants, TokenId, UserId};

use crate::farm::{Farm, is_conflict};

pub async fn a_name_is_taken_once(farm: &Farm) {
    let ann = farm.user("ann").await;
    let again = farm.store.add_user("ann", "other@example.org", true).await;
    assert!(is_conflict(again));
    let found = farm.store.user_by_name("ann").await.unwrap().unwrap();
    assert_eq!((found.id, found.admin), (ann, false));
    assert_eq!(farm.store.user(ann).await.unwrap(), Some(found));
    assert_eq!(farm.store.user(UserId(99)).await.unwrap(), None);
    farm.user("abe").await;
    let users = farm.store.users().await.unwrap();
    let names: Vec<_> = users.iter().map(|user| user.username.as_str()).collect();
    assert_eq!(names, ["abe", "ann"]);

    farm.store.add_worker("alder", farm.hash()).await.unwrap();
    let again = farm.store.add_worker("alder", farm.hash()).await;
    assert!(is_conflict(again));
}

pub async fn a_token_opens_what_it_was_made_for(farm: &Farm) {
    let ann = farm.user("ann").await;
    let hash = farm.hash();
    let grants: Grants = "JOBS:RW LOGS:RO".parse().unwrap();
    let made = farm
        .store
        .add_token(ann, hash, &grants, None)
        .await
        .unwrap();
    assert_eq!(made.expires, None);
    let (user, granted) = farm.store.token(hash).await.unwrap().expect("it is good");
    assert_eq!((user.id, granted), (ann, grants));
    assert!(farm.store.token(farm.hash()).await.unwrap().is_none());
    // Nor is it a worker's, nor a guest's.
    assert!(farm.store.worker(hash).await.unwrap().is_none());
    assert!(farm.store.job_token(hash).await.unwrap().is_none());
    let nobody = UserId(99);
    let made = farm
        .store
        .add_token(nobody, farm.hash(), &made.grants, None);
    assert!(is_conflict(made.await));
}

pub async fn a_token_ends_when_it_should_or_is_taken_back(farm: &Farm) {
    let (ann, abe) = (farm.user("ann").await, farm.user("abe").await);
    let all = Grants::all();
    let (short, long, abes) = (farm.hash(), farm.hash(), farm.hash());
    farm.store
        .add_token(ann, short, &all, Some(1))
        .await
        .unwrap();
    let long_one = farm.store.add_token(ann, long, &all, Some(9)).await;
    let long_one = long_one.unwrap().id;
    farm.store.add_token(abe, abes, &all, None).await.unwrap();

    farm.pass(24 * 60 * 60 - 60).await;
    assert!(farm.store.token(short).await.unwrap().is_some());
    farm.pass(61).await;
    assert!(farm.store.token(short).await.unwrap().is_none());
    assert!(farm.store.token(long).await.unwrap().is_some());

    assert!(farm.store.revoke_token(long_one).await.unwrap());
    assert!(!farm.store.revoke_token(TokenId(99)).await.unwrap());
    assert!(farm.store.token(long).await.unwrap().is_none());
    let tokens = farm.store.tokens(ann).await.unwrap();
    assert_eq!(tokens.len(), 2);
    assert!(tokens[0].revoked && !tokens[1].revoked, "newest first");

    assert!(farm.store.revoke_user("abe").await.unwrap());
    assert!(!farm.store.revoke_user("nobody").await.unwrap());
    assert!(farm.store.token(abes).await.unwrap().is_none());
}

pub async fn a_worker_whose_token_was_taken_back_leaves_its_name(farm: &Farm) {
    let (old, new) = (farm.hash(), farm.hash());
    let first = farm.store.add_worker("alder", old).await.unwrap();
    assert_eq!(farm.store.worker(old).await.unwrap(), Some(first.clone()));
    assert!(farm.store.revoke_worker("alder").await.unwrap());
    assert!(!farm.store.revoke_worker("alder").await.unwrap());
    assert!(farm.store.worker(old).await.unwrap().is_none());

    let second = farm.store.add_worker("alder", new).await.unwrap();
    assert_ne!(first.id, second.id);
    assert!(
        farm.store
            .pause_worker("alder", Some("rain"))
            .await
            .unwrap()
    );
    let all = farm.store.workers().await.unwrap();
    let paused: Vec<_> = all.iter().map(|one| one.paused.as_deref()).collect();
    assert_eq!(paused, [None, Some("rain")]);
    assert!(farm.store.pause_worker("alder", None).await.unwrap());
    assert!(!farm.store.pause_worker("birch", None).await.unwrap());
}

pub async fn a_worker_can_be_given_another_token(farm: &Farm) {
    let (old, new) = (farm.hash(), farm.hash());
    farm.store.renew_worker("inside", old).await.unwrap();
    let first = farm.store.worker(old).await.unwrap().expect("it was made");
    farm.store.renew_worker("inside", new).await.unwrap();
    assert!(farm.store.worker(old).await.unwrap().is_none());
    assert_eq!(farm.store.worker(new).await.unwrap(), Some(first));
    // Nor does that take another's.
    assert!(is_conflict(farm.store.renew_worker("other", new).await));
}

/// Never a failure of the database.
pub async fn a_name_with_a_nul_is_refused_or_kept_as_it_is(farm: &Farm) {
    match farm.store.add_user("a\0b", "a@example.org", false).await {
        Ok(user) => assert_eq!(user.username, "a\0b"),
        refused => assert!(is_conflict(refused)),
    }
    farm.store.ping().await.unwrap();
}
