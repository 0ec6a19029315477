//! Each field at its limit, and over it.

use http::StatusCode;
use kiln_core::farm::limits;
use serde_json::{Value, json};

use super::harness::{ALL, Farm, MANIFEST};

const SUBMIT: &str = "mutation($manifest: String!, $note: String, $tags: [String!], \
    $requirements: [String!]) { submit(manifest: $manifest, note: $note, tags: $tags, \
    requirements: $requirements, execute: false) { id note tags requirements } }";

async fn submit(farm: &Farm, token: &str, change: Value) -> (StatusCode, Value) {
    let mut variables = json!({ "manifest": MANIFEST });
    for (key, value) in change.as_object().unwrap() {
        variables[key] = value.clone();
    }
    let reply = farm.query(token, SUBMIT, variables).await;
    (reply.status, reply.json())
}

#[tokio::test]
async fn each_field_of_submit_is_taken_at_its_limit_and_refused_over_it() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let text = |length: usize| "é".repeat(length / 2);
    let tasks = |count: usize| {
        let tasks: String = (0..count).map(|n| format!("- t{n}: x\n")).collect();
        format!("image: debian/bookworm\ntasks:\n{tasks}")
    };
    let many = |count: usize| -> Vec<String> { (0..count).map(|n| format!("t{n}")).collect() };
    let labels = |count: usize| -> Vec<String> { (0..count).map(|n| format!("k{n}=v")).collect() };
    let label = |length: usize| format!("k={}", "v".repeat(length));
    for (at, over, named) in [
        (
            json!({ "note": text(limits::NOTE) }),
            json!({ "note": text(limits::NOTE + 2) }),
            "note",
        ),
        (
            json!({ "tags": many(limits::TAGS) }),
            json!({ "tags": many(limits::TAGS + 1) }),
            "tags",
        ),
        (
            json!({ "tags": [text(limits::TAG)] }),
            json!({ "tags": [text(limits::TAG + 2)] }),
            "tags",
        ),
        (
            json!({ "manifest": tasks(limits::TASKS) }),
            json!({ "manifest": tasks(limits::TASKS + 1) }),
            "tasks",
        ),
        (
            json!({ "requirements": labels(limits::LABELS) }),
            json!({ "requirements": labels(limits::LABELS + 1) }),
            "requirements",
        ),
        (
            json!({ "requirements": [label(limits::LABEL)] }),
            json!({ "requirements": [label(limits::LABEL + 1)] }),
            "requirements",
        ),
    ] {
        let (status, answer) = submit(&farm, &token, at).await;
        assert_eq!(status, StatusCode::OK, "{named}: {answer}");
        let (status, answer) = submit(&farm, &token, over).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{named}: {answer}");
        let error = &answer["errors"][0];
        assert_eq!(error["extensions"]["details"]["field"], named, "{error}");
        assert!(
            error["message"].as_str().unwrap().contains("at most"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_manifest_of_a_mebibyte_is_taken_however_it_is_escaped_and_no_longer_one() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    // Line ends take two bytes in JSON, and six as \u000a.
    let padded = |length: usize| {
        let comments = "#\n".repeat((length - MANIFEST.len()) / 2);
        let manifest = format!("{MANIFEST}{comments}");
        format!("{manifest}{}", "#".repeat(length - manifest.len()))
    };
    let longest = padded(1 << 20);
    let query = "mutation($m: String!) { submit(manifest: $m, execute: false) { id } }";
    let escaped: String = longest
        .bytes()
        .map(|byte| format!("\\u{byte:04x}"))
        .collect();
    let body = format!(r#"{{"query": "{query}", "variables": {{"m": "{escaped}"}}}}"#);
    let headers = [("content-type", "application/json")];
    let request = farm.request(http::Method::POST, "/query", &token, &headers, body);
    let reply = farm.reply(request).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    let reply = farm
        .query(&token, query, json!({ "m": padded((1 << 20) + 1) }))
        .await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert!(reply.error().contains("1048576"), "{}", reply.error());
}

#[tokio::test]
async fn a_wrong_manifest_is_told_with_line_column_and_remedy() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let manifest = "image: debian/bookworm\ntasks:\n- one: 1\n- one: 2\narch: [\"x\"]\n";
    let (status, answer) = submit(&farm, &token, json!({ "manifest": manifest })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let error = &answer["errors"][0];
    assert!(
        error["message"].as_str().unwrap().contains("line "),
        "{error}"
    );
    let found = &error["extensions"]["details"]["diagnostics"][0];
    assert!(found["line"].as_u64().unwrap() >= 1, "{found}");
    assert!(found["column"].as_u64().unwrap() >= 1, "{found}");
    assert!(found["remedy"].is_string(), "{found}");
}

#[tokio::test]
async fn an_image_that_no_worker_ever_had_is_refused_once_there_was_a_worker() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let unknown = json!({ "manifest": "image: debian/bokworm\ntasks: [{a: b}]" });
    let (status, answer) = submit(&farm, &token, unknown.clone()).await;
    assert_eq!(status, StatusCode::OK, "nothing is known yet: {answer}");
    let _worker = farm.worker("w1").await;
    let (status, answer) = submit(&farm, &token, unknown).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let message = answer["errors"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("did you mean `debian/bookworm`?"),
        "{message}"
    );
}

#[tokio::test]
async fn secrets_need_their_grant_where_the_manifest_names_one() {
    let farm = Farm::new().await;
    let token = farm.person("ann", "JOBS:RW").await;
    let manifest = format!("{MANIFEST}secrets:\n- 5f1d4b8e-8c6b-4e0b-9d57-0a4a6ed5a3c1\n");
    let submit = "mutation($m: String!, $s: Boolean) { submit(manifest: $m, secrets: $s, execute: false) { id } }";
    for (wanted, status) in [
        (json!(true), StatusCode::FORBIDDEN),
        (json!(false), StatusCode::OK),
        (json!(null), StatusCode::OK),
    ] {
        let reply = farm
            .query(&token, submit, json!({ "m": manifest, "s": wanted }))
            .await;
        assert_eq!(reply.status, status, "{wanted}: {}", reply.text());
    }
}

#[tokio::test]
async fn groups_have_limits_too() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let job = farm.submit(&token, ", execute: false").await.0;
    let create = "mutation($jobs: [Int!]!, $triggers: [TriggerInput!], $note: String) { \
        createGroup(jobIds: $jobs, triggers: $triggers, note: $note) { id } }";
    let url = |length: usize| {
        let url = "https://e.org/".to_owned();
        let rest = "x".repeat(length - url.len());
        json!({ "type": "WEBHOOK", "condition": "ALWAYS", "webhook": { "url": url + &rest } })
    };
    let mail = |to: &str| json!({ "type": "EMAIL", "condition": "ALWAYS", "email": { "to": to } });
    let long = format!("{}@example.org", "x".repeat(limits::EMAIL));
    for wrong in [
        json!({ "jobs": [] }),
        json!({ "jobs": [job, job] }),
        json!({ "jobs": (0..=limits::GROUP).collect::<Vec<_>>() }),
        json!({ "jobs": [job], "note": "x".repeat(limits::NOTE + 1) }),
        json!({ "jobs": [job], "triggers": vec![url(99); limits::TRIGGERS + 1] }),
        json!({ "jobs": [job], "triggers": [url(limits::URL + 1)] }),
        json!({ "jobs": [job], "triggers": [mail("nobody")] }),
        json!({ "jobs": [job], "triggers": [mail("a@b\r\nBcc: c@d")] }),
        json!({ "jobs": [job], "triggers": [mail(&long)] }),
        json!({ "jobs": [job], "triggers": [{ "type": "EMAIL", "condition": "ALWAYS" }] }),
    ] {
        let reply = farm.query(&token, create, wrong.clone()).await;
        assert_eq!(
            reply.status,
            StatusCode::BAD_REQUEST,
            "{wrong}: {}",
            reply.text()
        );
    }
    let most = json!({ "jobs": [job], "triggers": vec![url(limits::URL); limits::TRIGGERS] });
    farm.ask(&token, create, most).await;
}
