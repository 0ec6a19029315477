//! A server's life: how it listens, how it is, how it ends.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::Request;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use kiln_core::job::JobStatus;
use kiln_server::Listener;
use kiln_wire::{
    client::{Client, Options, Target, empty},
    message::FromServer,
    report::SESSION_HEADER,
};
use tokio::sync::mpsc;
use tokio_rustls::rustls::{
    self, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use super::harness::{Answer, Farm, config};

async fn get(client: &Client, path: &str) -> Answer {
    let request = Request::get(path).body(empty()).unwrap();
    Answer::to(client, request).await.unwrap()
}

#[tokio::test]
async fn a_server_that_ends_takes_the_append_that_is_on_its_way() {
    let mut farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    let start = worker.append(offer.fence, "0", "").await.stored();
    let (pieces, body) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(body));
    let body = body.map_err(|never| match never {}).boxed();
    let request = Request::put(format!("/worker/lease/{}/log?offset={start}", offer.fence))
        .header(SESSION_HEADER, worker.session.as_str())
        .body(body)
        .unwrap();
    let client = worker.client.clone();
    let append = tokio::spawn(async move { Answer::to(&client, request).await });
    let piece = |text: &'static str| Ok(Frame::data(Bytes::from_static(text.as_bytes())));
    pieces.send(piece("not ")).await.unwrap();
    // The server has it once this is taken.
    pieces.send(piece("lo")).await.unwrap();
    pieces.send(piece("st")).await.unwrap();
    let stop = tokio::spawn(farm.take().stop());
    // It stops: nobody new is let in.
    while farm
        .client(None)
        .send(Request::get("/healthz").body(empty()).unwrap())
        .await
        .is_ok()
    {
        tokio::task::yield_now().await;
    }
    pieces.send(piece("\n")).await.unwrap();
    drop(pieces);
    let answer = append.await.unwrap().unwrap();
    assert_eq!(answer.stored(), start + 9);
    stop.await.unwrap();
    assert!(farm.log(offer.job, None).ends_with("\nnot lost\n"));
}

#[tokio::test]
async fn a_server_that_ends_says_so_to_its_workers_and_their_leases_go_on() {
    let mut farm = Farm::new().await;
    let (mut worker, offer) = farm.begun().await;
    let stop = tokio::spawn(farm.take().stop());
    match worker.frame().await {
        Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Restart),
        other => panic!("{other:?}"),
    }
    while let Some(Ok(_)) = worker.socket.next().await {}
    stop.await.unwrap();
    let job = farm.job(offer.job).await;
    assert_eq!(job.status, JobStatus::Running);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_server_was_killed() {
    let mut farm = Farm::new().await;
    let (worker, offer) = farm.begun().await;
    let start = worker.append(offer.fence, "0", "").await.stored();
    let end = worker
        .append(offer.fence, &start.to_string(), "kept\n")
        .await
        .stored();
    farm.restart().await;
    let mut hello = super::harness::hello(1);
    hello.leases = vec![offer.fence];
    let mut again = farm.connected("kiln_w_one", &hello.session).await;
    again
        .say(&kiln_wire::message::FromWorker::Hello(hello))
        .await;
    assert!(again.welcomed().await.is_empty());
    assert_eq!(again.append(offer.fence, "0", "").await.stored(), end);
    again
        .append(offer.fence, &end.to_string(), "on\n")
        .await
        .stored();
    assert!(farm.log(offer.job, None).ends_with("\nkept\non\n"));
    again.end(offer.fence, JobStatus::Success).await.done();
    assert_eq!(
        again.next().await,
        FromServer::Cancel { fence: offer.fence }
    );
}

#[tokio::test]
async fn a_server_says_whether_it_is_alive_and_ready_and_what_is_missing() {
    let farm = Farm::new().await;
    let client = farm.client(None);
    assert_eq!(get(&client, "/healthz").await.status, 200);
    assert_eq!(get(&client, "/readyz").await.status, 200);
    let objects = farm.dir.path().join("objects");
    std::fs::rename(&objects, farm.dir.path().join("elsewhere")).unwrap();
    // What was seen a moment ago is told for a second.
    let mut answer = get(&client, "/readyz").await;
    while answer.text() == "ready\n" {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        answer = get(&client, "/readyz").await;
    }
    // All else is served: a proxy is not to take this server out.
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.text(),
        "ready\nwarning: the place of logs and artifacts can't be written\n"
    );
    assert_eq!(get(&client, "/healthz").await.status, 200);
}

#[tokio::test]
async fn a_server_that_is_about_to_end_is_not_ready_and_serves_on() {
    let mut farm = Farm::new().await;
    let running = farm.take();
    let client = farm.client(None);
    assert_eq!(get(&client, "/readyz").await.status, 200);
    running.leave();
    let answer = get(&client, "/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.text(), "the server is ending\n");
    let (worker, offer) = farm.begun().await;
    worker.end(offer.fence, JobStatus::Success).await.done();
    running.stop().await;
}

#[tokio::test]
async fn the_metrics_have_the_names_that_dashboards_use() {
    let farm = Farm::new().await;
    let (worker, offer) = farm.leased().await;
    let started = kiln_wire::report::Event::Started {
        digest: "d1".to_owned(),
        settle_ms: 1500,
    };
    worker.json(offer.fence, "event", &started).await.done();
    let running = get(&farm.client(None), "/metrics").await;
    worker.end(offer.fence, JobStatus::Failed).await.done();
    let ended = get(&farm.client(None), "/metrics").await;
    let has = |answer: &Answer, lines: &[&str]| {
        for line in lines {
            let text = answer.text();
            assert!(
                text.lines().any(|there| there == *line),
                "no {line} in\n{text}"
            );
        }
    };
    has(
        &running,
        &[
            "buildsrht_builds_submitted_total 1",
            "buildsrht_builds_running 1",
            "buildsrht_build_workers 1",
            "buildsrht_image_runs_total{image=\"debian/stable\",arch=\"default\"} 1",
            "buildsrht_vm_settle_duration_seconds_bucket{le=\"2.0\",image=\"debian/stable\",arch=\"default\"} 1",
            "buildsrht_triggers_webhooks_failed_total 0",
            "kiln_slots 1",
            "kiln_slots_free 0",
            "kiln_queue_length 0",
            "kiln_leases_lost_total 0",
        ],
    );
    has(
        &ended,
        &[
            "buildsrht_builds_running 0",
            "buildsrht_build_duration_count{status=\"failed\"} 1",
            "kiln_slots_free 1",
        ],
    );
}

#[tokio::test]
async fn a_server_listens_on_tcp_and_on_a_socket_of_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let store = Farm::new().await.store.clone();
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let path = dir.path().join("socket");
    let unix = tokio::net::UnixListener::bind(&path).unwrap();
    let listeners = vec![Listener::Tcp(tcp), Listener::Unix(unix)];
    let running = kiln_server::start(config(dir.path()), store, listeners).await;
    for target in [Target::Url(format!("http://{address}")), Target::Unix(path)] {
        let client = Client::new(&target, &Options::default()).unwrap();
        assert_eq!(get(&client, "/healthz").await.text(), "alive\n");
    }
    running.unwrap().stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

/// The certificates with which the client is tried.
fn tls() -> Arc<ServerConfig> {
    let chain = include_bytes!("../../../../kiln-wire/tests/it/tls/server.pem");
    let key = include_bytes!("../../../../kiln-wire/tests/it/tls/server.key");
    let chain = CertificateDer::pem_slice_iter(chain).map(Result::unwrap);
    let key = PrivateKeyDer::from_pem_slice(key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth();
    Arc::new(config.with_single_cert(chain.collect(), key).unwrap())
}

#[tokio::test]
async fn a_server_listens_with_tls_and_who_speaks_none_is_not_answered() {
    let dir = tempfile::tempdir().unwrap();
    let store = Farm::new().await.store.clone();
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let listeners = vec![Listener::Tls(tcp, tls())];
    let running = kiln_server::start(config(dir.path()), store, listeners).await;
    let ca = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../kiln-wire/tests/it/tls/ca.pem"
    );
    let options = Options {
        ca: Some(ca.into()),
        ..Options::default()
    };
    let target = Target::Url(format!("https://localhost:{}", address.port()));
    let client = Client::new(&target, &options).unwrap();
    assert_eq!(get(&client, "/healthz").await.text(), "alive\n");
    let target = Target::Url(format!("http://{address}"));
    let plain = Client::new(&target, &Options::default()).unwrap();
    let request = Request::get("/healthz").body(empty()).unwrap();
    assert!(Answer::to(&plain, request).await.is_err());
    running.unwrap().stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let farm = Farm::new().await;
    let request = Request::get("/healthz").header("x-long", "x".repeat(100 << 10));
    let answer = Answer::to(&farm.client(None), request.body(empty()).unwrap()).await;
    assert_eq!(answer.unwrap().status, 431);
}
