//! PostgreSQL as operators have it: roles that may little, passwords, TLS.

use kiln_core::job::JobStatus;
use kiln_store::{Config, OpenError, Store, testing::Postgres};

use crate::farm::Farm;

const PAGE: &str = include_str!("../../../../docs/operator.md");

fn config(url: &str, migrate: bool) -> Config {
    Config {
        url: url.to_owned(),
        migrate,
    }
}

/// The statements on the operator's page.
fn grants() -> String {
    let blocks = PAGE.split("```sql\n").skip(1);
    let blocks: Vec<&str> = blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(!blocks.is_empty(), "the page has no SQL");
    blocks.concat()
}

/// A cluster in which just what the page says was done.
fn prepared() -> (Postgres, String, String) {
    let postgres = Postgres::start().expect("PostgreSQL");
    let own = postgres.database().unwrap();
    postgres.sql(&own, &grants()).unwrap();
    let of = |role: &str| {
        let host = postgres.directory().display();
        format!("postgres:///kiln?user={role}&host={host}")
    };
    let (owner, server) = (of("kiln_owner"), of("kiln_server"));
    (postgres, owner, server)
}

#[tokio::test]
async fn a_server_needs_only_the_rights_on_the_operators_page_once_the_owner_migrated() {
    let (postgres, owner, server) = prepared();
    for may in [true, false] {
        let error = Store::open(&config(&server, may)).await.unwrap_err();
        assert!(matches!(error, OpenError::Wrong(_)));
        let error = error.to_string();
        assert!(error.contains("kiln admin migrate"), "{error}");
    }
    drop(Store::open(&config(&owner, true)).await.unwrap());
    let store = Store::open(&config(&server, true)).await.unwrap();
    let farm = Farm::of(store, config(&server, false));
    let ann = farm.user("ann").await;
    let alder = farm.builder("alder", 2).await;
    let ended = farm.submit(ann).await;
    let fence = farm.assigned(&alder).await;
    farm.end(&alder, fence, JobStatus::Success).await;
    let cancelled = farm.submit(ann).await;
    farm.assigned(&alder).await;
    assert_eq!(farm.held(&alder).await, [cancelled]);
    farm.store.cancel(cancelled, "enough").await.unwrap();
    farm.reap().await;
    farm.agrees_with_itself().await;
    let again = farm.another_store().await;
    assert_eq!(again.job(ended).await.unwrap(), Some(farm.job(ended).await));
    let refused = postgres.sql(&owner, "SET ROLE kiln_server; DROP TABLE outbox;");
    assert!(refused.is_err(), "the server's role may drop tables");
}

#[tokio::test]
async fn a_role_without_rights_is_told_where_they_are_written() {
    let (postgres, owner, _) = prepared();
    drop(Store::open(&config(&owner, true)).await.unwrap());
    postgres.sql(&owner, "CREATE ROLE nobody LOGIN;").unwrap();
    let nobody = owner.replace("kiln_owner", "nobody");
    let error = Store::open(&config(&nobody, false)).await.unwrap_err();
    assert!(error.to_string().contains("GRANT"), "{error}");
}

#[tokio::test]
async fn many_servers_that_start_at_once_on_an_empty_database_all_come_up() {
    let farm = Farm::postgres().await;
    let url = farm.empty_database().await;
    let open = || {
        let config = config(&url, true);
        tokio::spawn(async move { Store::open(&config).await })
    };
    let all: Vec<_> = (0..8).map(|_| open()).collect();
    for opened in all {
        opened.await.unwrap().expect("a store");
    }
}

#[tokio::test]
async fn passwords_go_over_tls_to_whom_the_certificate_names_and_into_no_error() {
    let postgres = Postgres::start_with_tls().expect("PostgreSQL");
    let own = postgres.database().unwrap();
    let role = "CREATE ROLE ada LOGIN SUPERUSER PASSWORD 'hunter2 & more';";
    postgres.sql(&own, role).unwrap();
    let right = postgres.with_tls(&own, "ada:hunter2%20%26%20more");
    let store = Store::open(&config(&right, true)).await.unwrap();
    store.ping().await.unwrap();
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE usename = 'ada' AND ssl;";
    assert_ne!(postgres.sql(&own, encrypted).unwrap().trim(), "0");
    let in_query = postgres.with_tls(&own, "ada") + "&password=hunter2%20%26%20more";
    Store::open(&config(&in_query, false)).await.unwrap();

    let ca = format!(
        "sslrootcert={}",
        postgres.directory().join("ca.pem").display()
    );
    for wrong in [
        postgres.with_tls(&own, "ada:hunter3"),
        right.replace("verify-full", "disable"),
        // Signed by nobody that this host knows; then for another name.
        right.replace(&ca, ""),
        right.replace("127.0.0.1", "localhost"),
    ] {
        let error = Store::open(&config(&wrong, false)).await.expect_err(&wrong);
        assert!(!error.to_string().contains("hunter"), "{error}");
        assert!(!format!("{error:?}").contains("hunter"), "{error:?}");
    }
}
