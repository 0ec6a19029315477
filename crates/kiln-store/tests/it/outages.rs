//! PostgreSQL that goes away while it is used, and comes again.

use std::{
    future::poll_fn,
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use kiln_core::job::JobStatus;
use kiln_store::{Config, OpenError, Store, StoreError, model::Moment, testing::Postgres};

use crate::farm::{Farm, new_job};

/// A farm on a PostgreSQL of its own.
async fn farm(postgres: &Postgres) -> Farm {
    let url = postgres.database().unwrap();
    let config = Config { url, migrate: true };
    let store = Store::open(&config).await.unwrap();
    Farm::of(store, config)
}

fn unavailable<T: std::fmt::Debug>(done: &Result<T, StoreError>) {
    assert!(matches!(done, Err(StoreError::Unavailable(_))), "{done:?}");
}

/// Tries until the database answers: nobody does more than ask.
async fn comes_again(farm: &Farm) {
    let until = Instant::now() + Duration::from_secs(60);
    while farm.store.ping().await.is_err() {
        assert!(Instant::now() < until, "it stays away");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Once it is known, a hundred are refused sooner than one would wait.
async fn nobody_waits(farm: &Farm) {
    unavailable(&farm.store.ping().await);
    let began = Instant::now();
    for _ in 0..50 {
        unavailable(&farm.store.ping().await);
        unavailable(&farm.store.reap(Moment(0)).await);
    }
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_is_stopped_is_missed_quickly_and_used_again_when_it_is_back() {
    let postgres = Postgres::start().expect("PostgreSQL");
    let farm = farm(&postgres).await;
    let ann = farm.user("ann").await;
    for how in [Postgres::stop, Postgres::kill] {
        how(&postgres).unwrap();
        nobody_waits(&farm).await;
        // That it is away is told once, not by each who asks.
        let asked = farm.store.ping().await.unwrap_err();
        assert!(kiln_store::is_away(&asked), "{asked}");
        let again = Store::open(&farm.config).await.unwrap_err();
        assert!(matches!(again, OpenError::Away(_)), "{again:?}");
        postgres.start_again().unwrap();
        comes_again(&farm).await;
        let job = farm.submit(ann).await;
        assert_eq!(farm.status(job).await, JobStatus::Queued);
    }
    farm.agrees_with_itself().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_says_nothing_any_more_is_not_waited_for_without_an_end() {
    let postgres = Postgres::start().expect("PostgreSQL");
    let farm = farm(&postgres).await;
    let ann = farm.user("ann").await;
    postgres.freeze().unwrap();
    // Some are in the middle of something, and most find that it is away.
    let asked = (0..40).map(|_| {
        let store = farm.store.clone();
        tokio::spawn(async move { store.reap(Moment(0)).await })
    });
    let asked: Vec<_> = asked.collect();
    let submitted = (0..10).map(|_| {
        let store = farm.store.clone();
        tokio::spawn(async move { store.submit(&new_job(ann)).await })
    });
    let submitted: Vec<_> = submitted.collect();
    let all = tokio::time::timeout(Duration::from_secs(120), async {
        for one in asked {
            unavailable(&one.await.unwrap());
        }
        for one in submitted {
            unavailable(&one.await.unwrap());
        }
    });
    all.await.expect("an end");
    nobody_waits(&farm).await;
    postgres.go_on().unwrap();
    comes_again(&farm).await;
    let job = farm.submit(ann).await;
    assert_eq!(farm.status(job).await, JobStatus::Queued);
    farm.agrees_with_itself().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_is_over_is_not_noticed() {
    let postgres = Postgres::start().expect("PostgreSQL");
    let farm = farm(&postgres).await;
    let ann = farm.user("ann").await;
    // All connections are there and were used a moment ago.
    let pings = (0..32).map(|_| {
        let store = farm.store.clone();
        tokio::spawn(async move { store.ping().await })
    });
    for ping in pings.collect::<Vec<_>>() {
        ping.await.unwrap().unwrap();
    }
    farm.store.ping().await.unwrap();
    postgres
        .sql(
            &farm.config.url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid();",
        )
        .unwrap();
    let job = farm.submit(ann).await;
    assert_eq!(farm.status(job).await, JobStatus::Queued);
}

/// Gives something up when it was waited for so often.
async fn given_up<T>(work: impl Future<Output = T>, mut often: u32) {
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Pending if often > 0 => {
            often -= 1;
            Poll::Pending
        }
        _ => Poll::Ready(()),
    })
    .await;
}

#[tokio::test]
async fn who_gives_up_while_a_transaction_begins_leaves_it_to_nobody() {
    let postgres = Postgres::start().expect("PostgreSQL");
    let farm = farm(&postgres).await;
    for often in (0..8).cycle().take(80) {
        given_up(farm.store.cancel_unserved(), often).await;
    }
    // More than there are connections, which are used one after the other.
    for _ in 0..64 {
        farm.store.ping().await.unwrap();
    }
    let left = postgres.sql(
        &farm.config.url,
        "SELECT COUNT(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%';",
    );
    assert_eq!(left.unwrap().trim(), "0");
}
