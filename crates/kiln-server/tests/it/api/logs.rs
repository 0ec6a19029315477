//! Logs by HTTP, byte by byte.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use kiln_core::{
    farm::{Fence, JobId},
    job::TaskStatus,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
};

use super::harness::{ALL, Farm, Worker};

const PARTIAL: StatusCode = StatusCode::PARTIAL_CONTENT;

/// Appends to the log of the task `one` where it ends.
async fn append(farm: &Farm, worker: &Worker<'_>, fence: Fence, log: &str, text: &str) {
    let end = farm.get(&farm.reader(), log, &[]).await.body.len();
    let path = format!("/worker/lease/{fence}/log?offset={end}&task=one");
    let reply = worker.report(Method::PUT, &path, text.to_owned()).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
}

async fn event(worker: &Worker<'_>, fence: Fence, task: &str, status: TaskStatus) {
    let path = format!("/worker/lease/{fence}/event");
    let body = json!({ "event": "task", "task": task, "status": status }).to_string();
    let reply = worker.report(Method::POST, &path, body).await;
    assert!(reply.status.is_success(), "{}", reply.text());
}

/// A job whose task `one` runs, and the path of that task's log.
async fn running<'a>(farm: &'a Farm, name: &str) -> (Worker<'a>, JobId, Fence, String) {
    farm.person("ann", ALL).await;
    let worker = farm.worker(name).await;
    let job = farm.submit(&farm.reader(), "").await;
    let fence = worker.take(job).await;
    let path = format!("/worker/lease/{fence}/begun");
    let begun = worker.report(Method::POST, &path, "").await;
    assert_eq!(begun.status, StatusCode::NO_CONTENT, "{}", begun.text());
    event(&worker, fence, "one", TaskStatus::Running).await;
    (worker, job, fence, format!("/query/log/{job}/one/log"))
}

impl Farm {
    /// The token of the first person with all grants.
    fn reader(&self) -> String {
        "kiln_u_1_JOBS_RW_LOGS_RW_SECRETS_RW_PROFILE_RW".into()
    }
}

#[tokio::test]
async fn a_log_that_grows_is_read_on_from_the_last_byte_and_no_news_is_one_byte() {
    let farm = Farm::new().await;
    let (worker, job, fence, log) = running(&farm, "w1").await;
    let token = farm.reader();
    // What `hut` does: from the last byte that it has, again and again.
    let first = farm.get(&token, &log, &[("range", "bytes=0-")]).await;
    assert_eq!(first.status, PARTIAL);
    assert!(
        first.body.len() >= 2,
        "a RUNNING task's log holds something"
    );
    assert_eq!(first.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(first.header("x-content-type-options"), "nosniff");
    assert!(
        first
            .header("content-security-policy")
            .starts_with("sandbox")
    );
    let mut have = first.body;
    for round in 0..5 {
        let from = have.len() - 1;
        let range = format!("bytes={from}-");
        let quiet = farm.get(&token, &log, &[("range", &range)]).await;
        assert_eq!(
            (quiet.status, quiet.body.as_slice()),
            (PARTIAL, &have[from..])
        );
        let text = format!("line {round}\n");
        append(&farm, &worker, fence, &log, &text).await;
        let more = farm.get(&token, &log, &[("range", &range)]).await;
        let total = have.len() + text.len();
        let expected = format!("bytes {from}-{}/{total}", total - 1);
        assert_eq!(more.header("content-range"), expected);
        assert_eq!(more.header("content-length"), (total - from).to_string());
        have.extend_from_slice(&more.body[1..]);
    }
    let whole = farm.get(&token, &log, &[]).await;
    assert_eq!((whole.status, whole.body), (StatusCode::OK, have.clone()));
    let total = have.len();
    for (range, from, to) in [
        ("bytes=3-5".to_owned(), 3, 6),
        ("bytes=-4".to_owned(), total - 4, total),
        ("bytes=-99999".to_owned(), 0, total),
        (format!("bytes={total}-"), total - 1, total),
        ("bytes=99999999-".to_owned(), total - 1, total),
    ] {
        let part = farm.get(&token, &log, &[("range", &range)]).await;
        assert_eq!(
            (part.status, part.body.as_slice()),
            (PARTIAL, &have[from..to]),
            "{range}"
        );
        let expected = format!("bytes {from}-{}/{total}", to - 1);
        assert_eq!(part.header("content-range"), expected, "{range}");
    }
    for ignored in ["bytes=0-1,3-4", "lines=1-2", "bytes=5-1", "rubbish"] {
        let all = farm.get(&token, &log, &[("range", ignored)]).await;
        assert_eq!(
            (all.status, all.body.len()),
            (StatusCode::OK, total),
            "{ignored}"
        );
    }
    let head = farm.request(Method::HEAD, &log, &token, &[("range", "bytes=1-2")], "");
    let head = farm.reply(head).await;
    assert_eq!((head.status, head.header("content-length")), (PARTIAL, "2"));
    assert!(head.body.is_empty());
    let job_log = farm
        .get(&token, &format!("/query/log/{job}/log"), &[])
        .await;
    assert!(job_log.body.len() >= 2, "so does a RUNNING job's");
}

#[tokio::test]
async fn who_follows_gets_a_line_within_200_ms_and_the_end_with_the_task() {
    let farm = Farm::new().await;
    let (worker, _, fence, log) = running(&farm, "w1").await;
    let token = farm.reader();
    let path = format!("{log}?follow");
    let response = farm
        .send(farm.request(Method::GET, &path, &token, &[], ""))
        .await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let mut got = Vec::new();
    let mut best = Duration::MAX;
    for round in 0..5 {
        let text = format!("live {round}\n");
        append(&farm, &worker, fence, &log, &text).await;
        let acknowledged = Instant::now();
        while !got.ends_with(text.as_bytes()) {
            let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await;
            let frame = frame.expect("the line").expect("no end").unwrap();
            got.extend_from_slice(&frame.into_data().unwrap());
        }
        best = best.min(acknowledged.elapsed());
    }
    // A loaded machine may be late now and then, and never is early each time without hints.
    assert!(best < Duration::from_millis(200), "{best:?}");
    event(&worker, fence, "one", TaskStatus::Success).await;
    let rest = tokio::time::timeout(Duration::from_secs(10), body.collect());
    got.extend_from_slice(&rest.await.expect("an end").unwrap().to_bytes());
    let whole = farm.get(&token, &log, &[]).await;
    assert_eq!(got, whole.body);
    let from = [("range", "bytes=4-")];
    let late = farm.get(&token, &path, &from).await;
    assert_eq!(late.body, whole.body[4..], "it begins where the range does");
}

#[tokio::test]
async fn who_is_no_user_any_more_follows_no_log() {
    let farm = Farm::new().await;
    let (_worker, _, _, log) = running(&farm, "w1").await;
    let token = farm.person("eve", "JOBS:RO LOGS:RO").await;
    let request = farm.request(Method::GET, &format!("{log}?follow"), &token, &[], "");
    let mut body = farm.send(request).await.into_body();
    body.frame().await.expect("the first line").unwrap();
    assert!(farm.store.revoke_user("eve").await.unwrap());
    let rest = tokio::time::timeout(Duration::from_secs(10), body.collect());
    rest.await.expect("an end while the job runs").unwrap();
}

#[tokio::test]
async fn who_reads_a_log_more_slowly_than_it_grows_loses_it_with_the_token_too() {
    let farm = Farm::new().await;
    let (worker, _, fence, log) = running(&farm, "w1").await;
    let text = "x".repeat(1 << 20);
    for _ in 0..12 {
        append(&farm, &worker, fence, &log, &text).await;
    }
    let token = farm.person("eve", "JOBS:RO LOGS:RO").await;
    // There is little room on the way: 4 MiB before it and next to nothing behind.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let address = farm.origin.strip_prefix("http://").unwrap();
    let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let asked = format!(
        "GET {log}?follow HTTP/1.1\r\nHost: farm\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(asked.as_bytes()).await.unwrap();
    let mut read = vec![0; 1000];
    stream.read_exact(&mut read).await.unwrap();
    assert!(read.starts_with(b"HTTP/1.1 200"));
    assert!(farm.store.revoke_user("eve").await.unwrap());
    // It is looked at each second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let rest = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut read));
    rest.await.expect("an end").unwrap();
    assert!(read.len() < 8 << 20, "{} bytes", read.len());
}

#[tokio::test]
async fn lines_are_cut_from_long_logs() {
    let farm = Farm::new().await;
    let (worker, _, fence, log) = running(&farm, "w1").await;
    let token = farm.reader();
    let text: String = (0..50_000).map(|n| format!("{n}\n")).collect();
    append(&farm, &worker, fence, &log, &text).await;
    let whole = farm.get(&token, &log, &[]).await.text();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let cut = farm
        .get(&token, &format!("{log}?lines=40000-40002"), &[])
        .await;
    assert_eq!(cut.text(), lines[39_999..40_002].concat());
    let none = farm
        .get(&token, &format!("{log}?lines=60000-60001"), &[])
        .await;
    assert_eq!((none.status, none.text()), (StatusCode::OK, String::new()));
    for wrong in ["", "0-1", "5-4", "x", "1-2-3"] {
        let reply = farm.get(&token, &format!("{log}?lines={wrong}"), &[]).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{wrong}");
        assert!(!reply.error().is_empty());
    }
}

#[tokio::test]
async fn the_api_shows_the_last_128_kib_in_whole_characters() {
    let farm = Farm::new().await;
    let (worker, job, fence, log) = running(&farm, "w1").await;
    let token = farm.reader();
    append(
        &farm,
        &worker,
        fence,
        &log,
        &format!("{}x", "é".repeat(100_000)),
    )
    .await;
    let query = "query($id: Int!) { job(id: $id) { tasks { log { last128KiB } } } }";
    let data = farm.ask(&token, query, json!({ "id": job.0 })).await;
    let tail = data["job"]["tasks"][0]["log"]["last128KiB"]
        .as_str()
        .unwrap();
    assert!(
        tail.len() <= 128 << 10 && tail.len() > (128 << 10) - 4,
        "{}",
        tail.len()
    );
    assert!(tail.starts_with('é') && tail.ends_with("éx"));
}

#[tokio::test]
async fn a_log_that_is_not_there_yet_or_never_was_is_not_found() {
    let farm = Farm::new().await;
    farm.person("ann", ALL).await;
    let token = farm.reader();
    let job = farm.submit(&token, ", execute: false").await;
    for path in [
        format!("/query/log/{job}/log"),
        format!("/query/log/{job}/one/log"),
        format!("/query/log/{job}/nosuch/log"),
        format!("/query/log/{job}/..%2f..%2flog/log"),
        "/query/log/99/log".to_owned(),
        "/query/log/x/log".to_owned(),
        "/query/log/-1/log".to_owned(),
        "/query/log/99999999999999/log".to_owned(),
    ] {
        let reply = farm.get(&token, &path, &[]).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{path}");
        assert!(!reply.error().is_empty(), "{path}");
    }
    let reply = farm.request(
        Method::POST,
        &format!("/query/log/{job}/log"),
        &token,
        &[],
        "",
    );
    assert_eq!(
        farm.reply(reply).await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
}

#[tokio::test]
async fn the_log_of_a_job_that_was_cancelled_in_the_queue_says_so_and_does_not_change() {
    let farm = Farm::new().await;
    farm.person("ann", ALL).await;
    let token = farm.reader();
    let job = farm.submit(&token, ", execute: false").await;
    let cancel = "mutation($id: Int!) { cancel(jobId: $id) { id } }";
    farm.ask(&token, cancel, json!({ "id": job.0 })).await;
    let path = format!("/query/log/{job}/log");
    let log = farm.get(&token, &path, &[]).await;
    assert_eq!(
        log.text(),
        "[kiln] the job ended as cancelled: its owner cancelled it\n"
    );
    let follow = farm.get(&token, &format!("{path}?follow"), &[]).await;
    assert_eq!(follow.text(), log.text());
    let task = format!("/query/log/{job}/two/log");
    let part = farm.get(&token, &task, &[("range", "bytes=5-8")]).await;
    assert_eq!((part.status, part.text().as_str()), (PARTIAL, "task"));
}
