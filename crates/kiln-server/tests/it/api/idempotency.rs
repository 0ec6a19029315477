//! A submission that is sent twice is one job.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::json;

use super::harness::{ALL, Farm, MANIFEST, id};

const SUBMIT: &str =
    "mutation($m: String!, $n: String) { submit(manifest: $m, note: $n, execute: false) { id } }";

#[tokio::test]
async fn submissions_with_one_key_are_one_job_however_many_come_at_once() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let headers = [("idempotency-key", "key-1")];
    let sends =
        (0..12).map(|_| farm.query_with(&token, SUBMIT, json!({ "m": MANIFEST }), &headers));
    let replies = futures_util::future::join_all(sends).await;
    let jobs: BTreeSet<_> = replies
        .iter()
        .map(|reply| {
            assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
            id(&reply.json()["data"]["submit"])
        })
        .collect();
    assert_eq!(jobs.len(), 1);
    let list = farm
        .ask(&token, "{ jobs { results { id } } }", json!({}))
        .await;
    assert_eq!(list["jobs"]["results"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_for_something_else_is_refused_and_another_persons_key_is_another() {
    let farm = Farm::new().await;
    let (ann, bob) = (farm.person("ann", ALL).await, farm.person("bob", ALL).await);
    let headers = [("idempotency-key", "key-1")];
    let first = farm
        .query_with(&ann, SUBMIT, json!({ "m": MANIFEST }), &headers)
        .await;
    assert_eq!(first.status, StatusCode::OK);
    let other = json!({ "m": MANIFEST, "n": "another note" });
    let other = farm.query_with(&ann, SUBMIT, other, &headers).await;
    assert_eq!(other.status, StatusCode::CONFLICT, "{}", other.text());
    let bobs = farm
        .query_with(&bob, SUBMIT, json!({ "m": MANIFEST }), &headers)
        .await;
    assert_ne!(bobs.json()["data"], first.json()["data"]);
}

#[tokio::test]
async fn two_submissions_of_one_request_are_two_jobs_also_when_it_is_sent_again() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let query = "mutation($m: String!) { a: submit(manifest: $m, execute: false) { id } \
        b: submit(manifest: $m, execute: false) { id } }";
    let headers = [("idempotency-key", "key-1")];
    let first = farm
        .query_with(&token, query, json!({ "m": MANIFEST }), &headers)
        .await
        .json();
    let again = farm
        .query_with(&token, query, json!({ "m": MANIFEST }), &headers)
        .await
        .json();
    assert_ne!(first["data"]["a"], first["data"]["b"]);
    assert_eq!(first, again);
}
