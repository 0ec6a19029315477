//! What is no GraphQL request, or one that asks for too much.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::harness::{ALL, Farm};

const JSON: &str = "application/json";

#[tokio::test]
async fn a_body_that_is_no_request_is_refused_in_json() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let cases: &[(&str, &[u8], u16)] = &[
        (JSON, b"", 400),
        (JSON, b"null", 400),
        (JSON, b"[]", 400),
        (JSON, b"{", 400),
        (JSON, b"{\"query\": 5}", 400),
        (JSON, b"{\"query\": \"\xff\xfe\"}", 400),
        (JSON, b"\xff", 400),
        (JSON, b"{\"query\": \"{ version { major } }\", \"variables\": [1]}", 400),
        (JSON, b"{\"query\": \"\\ud800\"}", 400),
        (JSON, b"{\"query\": \"\"}", 400),
        (JSON, b"{\"query\": \"{\"}", 400),
        (JSON, b"{\"query\": \"{ nosuch }\"}", 400),
        (JSON, b"{\"query\": \"{ job }\"}", 400),
        (JSON, b"{\"query\": \"{ job(id: 2147483648) { id } }\"}", 400),
        (JSON, b"{\"query\": \"{ job(id: \\\"x\\\") { id } }\"}", 400),
        (JSON, b"{\"query\": \"{ jobs(cursor: \\\"x\\\") { cursor } }\"}", 400),
        (JSON, b"{\"query\": \"{ jobs(cursor: 5) { cursor } }\"}", 400),
        (JSON, b"{\"query\": \"subscription { x }\"}", 400),
        (JSON, b"{\"query\": \"query a { me { id } } query b { me { id } }\"}", 400),
        (JSON, b"{\"query\": \"mutation { submit(manifest: null) { id } }\"}", 400),
        (JSON, b"{\"query\": \"mutation { submit(manifest: \\\"image: a\\\", visibility: SECRET) { id } }\"}", 400),
        ("", b"{}", 415),
        ("text/plain", b"{}", 415),
        ("application/x-www-form-urlencoded", b"query={me{id}}", 415),
        ("multipart/form-data", b"", 400),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\n--b--", 400),
        ("multipart/form-data; boundary=b", b"rubbish", 400),
    ];
    for (kind, body, status) in cases {
        let headers = [("content-type", *kind)];
        let request = farm.request(Method::POST, "/query", &token, &headers, body.to_vec());
        let reply = farm.reply(request).await;
        let sent = String::from_utf8_lossy(body);
        assert_eq!(
            reply.status.as_u16(),
            *status,
            "{kind} {sent}: {}",
            reply.text()
        );
        assert!(!reply.error().is_empty(), "{kind} {sent}: {}", reply.text());
    }
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let reply = farm
            .reply(farm.request(method, "/query", &token, &[], ""))
            .await;
        assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
        assert!(!reply.error().is_empty());
    }
}

#[tokio::test]
async fn queries_that_nest_repeat_or_cost_too_much_are_refused() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let deep = "{ group { jobs ".repeat(30);
    let ends = "}}".repeat(30);
    let nested = format!("{{ jobs {{ results {deep} {{ id }} {ends} }} }}");
    let lists = format!("{{ a(b: {}) }}", "[".repeat(1 << 20));
    let braces = "{a".repeat(1 << 19);
    let names: Vec<String> = (0..3000)
        .map(|n| format!("a{n}: version {{ major }}"))
        .collect();
    let aliases = format!("{{ {} }}", names.join(" "));
    let dear = "{ jobs { results { group { jobs { group { jobs { id } } } } } } }".to_owned();
    let texts =
        "{ jobs { results { tasks { log { last128KiB } } log { last128KiB } } } }".to_owned();
    let bomb = "{ ...a } fragment a on Query { ...b ...b } fragment b on Query { ...c ...c } \
        fragment c on Query { ...a }"
        .to_owned();
    // Each looks at all that waits and at every worker.
    let names = |field: &str, count: usize| -> String {
        let names: Vec<_> = (0..count).map(|n| format!("a{n}: {field}")).collect();
        names.join(" ")
    };
    let reasons = format!("{{ jobs {{ results {{ {} }} }} }}", names("waiting", 11));
    let queues = format!("{{ {} }}", names("queue { owner }", 100));
    let submit = r#"submit(manifest: "image: x\ntasks: [{a: b}]") { id }"#;
    let jobs = format!("mutation {{ {} }}", names(submit, 60));
    for query in [
        nested, lists, braces, aliases, dear, texts, bomb, reasons, queues, jobs,
    ] {
        let reply = farm.query(&token, &query, json!({})).await;
        let shown = &query[..query.len().min(60)];
        assert_eq!(
            reply.status,
            StatusCode::BAD_REQUEST,
            "{shown}: {}",
            reply.text()
        );
    }
    // As deep as may be read at all: refused by the validator, and no stack ends.
    let braces = format!("{}{}", "{a".repeat(60), "}".repeat(60));
    let lists = format!("{{ a(b: {}{}) }}", "[".repeat(60), "]".repeat(60));
    for query in [braces, lists] {
        let reply = farm.query(&token, &query, json!({})).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{}", reply.text());
    }
    let variables = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    let body =
        format!("{{\"query\": \"{{ me {{ id }} }}\", \"variables\": {{\"a\": {variables}}}}}");
    let headers = [("content-type", JSON)];
    let reply = farm
        .reply(farm.request(Method::POST, "/query", &token, &headers, body))
        .await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    let reply = farm
        .query(&token, "{ __schema { types { name } } }", json!({}))
        .await;
    assert_eq!(reply.status, StatusCode::OK);
}

#[tokio::test]
async fn a_huge_body_is_refused_and_without_a_token_not_even_read() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let huge = "x".repeat((8 << 20) + 1);
    let headers = [("content-type", JSON)];
    let request = farm.request(Method::POST, "/query", &token, &headers, huge);
    let reply = farm.reply(request).await;
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(reply.error().contains("8388608"));

    let address = farm.origin.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = "POST /query HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
        Content-Length: 1000000000\r\n\r\n{";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(20), socket.read_exact(&mut answer));
    read.await.expect("an answer before the body").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
}

#[tokio::test]
async fn slow_bodies_hold_up_nobody_else() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let address = farm.origin.strip_prefix("http://").unwrap();
    let head = format!(
        "POST /query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{"
    );
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        slow.push(socket);
    }
    // Sooner than the first of them is given up.
    let asked = farm.ask(&token, "{ me { id } }", json!({}));
    let asked = tokio::time::timeout(Duration::from_secs(20), asked);
    asked.await.expect("an answer while others are slow");
}

#[tokio::test]
async fn an_idempotency_key_has_a_form() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let long = "k".repeat(kiln_core::farm::limits::IDEMPOTENCY_KEY + 1);
    for key in ["", &long, "a\tb"] {
        let headers = [("idempotency-key", key)];
        let reply = farm
            .query_with(&token, "{ me { id } }", json!({}), &headers)
            .await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{key}");
    }
}
