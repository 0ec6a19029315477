//! Opening, migrating and copying a store.

use std::os::unix::fs::PermissionsExt as _;

use kiln_core::job::JobStatus;
use kiln_store::{Config, Store, testing};

use crate::farm::{Farm, is_conflict};

pub async fn a_later_migration_leaves_the_rows(farm: &Farm) {
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 2).await;
    let (running, queued) = (farm.submit(ann).await, farm.submit(ann).await);
    farm.assigned(&alder).await;
    let before = [farm.job(running).await, farm.job(queued).await];
    let later = [
        "CREATE TABLE hooks (id IDENTITY, job_id BIGINT NOT NULL REFERENCES jobs (id));
         INSERT INTO hooks (job_id) SELECT id FROM jobs;",
        "CREATE INDEX jobs_by_worker ON jobs (worker_id);",
    ];
    testing::migrate(&farm.store, &later).await.unwrap();
    // Once.
    testing::migrate(&farm.store, &later).await.unwrap();
    let after = [farm.job(running).await, farm.job(queued).await];
    assert_eq!(before, after);
    assert_eq!(farm.held(&alder).await, [running, queued]);

    // One that fails leaves nothing.
    let wrong = [
        later[0],
        later[1],
        "CREATE TABLE half (id IDENTITY); SELECT nothing;",
    ];
    assert!(testing::migrate(&farm.store, &wrong).await.is_err());
    let right = [later[0], later[1], "CREATE TABLE half (id IDENTITY);"];
    testing::migrate(&farm.store, &right).await.unwrap();
}

pub async fn the_store_of_a_newer_kiln_is_refused(farm: &Farm) {
    let newer = testing::migrate(&farm.store, &["CREATE TABLE newer (id IDENTITY);"]);
    let version = newer.await.unwrap();
    let error = testing::migrate(&farm.store, &[]).await.unwrap_err();
    assert!(error.to_string().contains("newer kiln"), "{error}");
    let named = format!("version {version}");
    assert!(error.to_string().contains(&named), "{error}");
}

#[tokio::test]
async fn an_older_store_is_refused_where_it_may_not_be_changed() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/kiln.db", dir.path().display());
    let read = Config {
        url: url.clone(),
        migrate: false,
    };
    // No file: none is made.
    assert!(Store::open(&read).await.is_err());
    assert!(!dir.path().join("kiln.db").exists());
    std::fs::write(dir.path().join("kiln.db"), "").unwrap();
    let error = Store::open(&read).await.unwrap_err().to_string();
    assert!(error.contains("kiln serve"), "{error}");
    Store::open(&Config { url, migrate: true }).await.unwrap();
    Store::open(&read).await.unwrap();
}

#[tokio::test]
async fn what_is_no_database_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kiln.db");
    std::fs::write(
        &file,
        "this is no database, and long enough to see that it is none\n",
    )
    .unwrap();
    let urls = [
        "mysql://localhost/kiln".to_owned(),
        "kiln.db".to_owned(),
        format!("sqlite://{}/none/kiln.db", dir.path().display()),
        format!("sqlite://{}", file.display()),
        format!("postgres:///kiln?host={}", dir.path().display()),
    ];
    for url in urls {
        let opened = Store::open(&Config {
            url: url.clone(),
            migrate: true,
        })
        .await;
        let error = opened.expect_err(&url).to_string();
        assert!(error.contains("database"), "{error}");
    }
}

#[tokio::test]
async fn a_copy_is_whole_and_overwrites_nothing() {
    let farm = Farm::sqlite().await;
    let dir = tempfile::tempdir().unwrap();
    let ann = farm.user("ann").await;
    let job = farm.submit(ann).await;
    let copy = dir.path().join("a copy's.db");
    farm.store.backup(&copy).await.unwrap();
    let mode = std::fs::metadata(&copy).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = farm.store.backup(&copy).await;
    assert!(
        again
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("there already")
    );
    assert!(is_conflict(again));
    let nowhere = dir.path().join("none/copy.db");
    assert!(farm.store.backup(&nowhere).await.is_err());

    let url = format!("sqlite://{}", copy.display());
    let copied = Store::open(&Config {
        url,
        migrate: false,
    })
    .await
    .unwrap();
    assert_eq!(copied.job(job).await.unwrap(), Some(farm.job(job).await));
    // It is a store of its own.
    copied.cancel(job, "in the copy").await.unwrap();
    assert_eq!(farm.status(job).await, JobStatus::Queued);
    assert!(testing::broken_rules(&copied).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_copy_of_postgresql_is_another_tools_work() {
    let farm = Farm::postgres().await;
    let dir = tempfile::tempdir().unwrap();
    let refused = farm
        .store
        .backup(&dir.path().join("copy"))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("pg_dump"), "{refused}");
    assert!(!dir.path().join("copy").exists());
}

#[tokio::test]
async fn a_store_outlives_a_restart_of_postgresql() {
    let farm = Farm::postgres().await;
    let ann = farm.user("ann").await;
    farm.cut_connections();
    // What was in flight may fail, what comes after does not.
    drop(farm.store.ping().await);
    let job = farm.submit(ann).await;
    assert_eq!(farm.status(job).await, JobStatus::Queued);
}

#[tokio::test]
async fn what_falls_victim_to_another_transaction_is_done_again_but_not_for_ever() {
    let farm = Farm::postgres().await;
    assert_eq!(testing::fall_victim(&farm.store, 3).await.unwrap(), 4);
    assert!(testing::fall_victim(&farm.store, 1000).await.is_err());
}

#[tokio::test]
async fn a_transaction_that_the_database_itself_undid_spoils_no_connection() {
    let farm = Farm::sqlite().await;
    let ann = farm.user("ann").await;
    // More often than there are connections.
    for _ in 0..20 {
        testing::undone_by_the_database(&farm.store).await.unwrap();
    }
    farm.submit(ann).await;
}

#[tokio::test]
async fn every_connection_waits_for_the_disk_and_not_for_ever_for_others() {
    let sqlite = Farm::sqlite().await;
    let postgres = Farm::postgres().await;
    let expected = [
        (&sqlite, "journal_mode", "wal"),
        (&sqlite, "synchronous", "2"),
        (&sqlite, "foreign_keys", "1"),
        (&sqlite, "busy_timeout", "10000"),
        (&postgres, "synchronous_commit", "on"),
        (&postgres, "idle_in_transaction_session_timeout", "15s"),
        (&postgres, "lock_timeout", "20s"),
        (&postgres, "statement_timeout", "1min"),
    ];
    for (farm, name, value) in expected {
        // One that is in use makes the pool open another.
        let (one, other) = tokio::join!(
            testing::setting(&farm.store, name),
            testing::setting(&farm.store, name)
        );
        assert_eq!(one.unwrap(), value, "{name}");
        assert_eq!(other.unwrap(), value, "{name}");
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_the_store_was_opened_again() {
    for farm in [Farm::sqlite().await, Farm::postgres().await] {
        let ann = farm.user("ann").await;
        let job = farm.submit(ann).await;
        let again = Store::open(&farm.config).await.unwrap();
        assert_eq!(again.job(job).await.unwrap(), Some(farm.job(job).await));
        // Two stores on one database, as a server and `kiln admin`.
        again.cancel(job, "by the other").await.unwrap();
        assert_eq!(farm.status(job).await, JobStatus::Cancelled);
    }
}
