//! What a guest finds at `farm.internal`, byte by byte.

use kiln_vm::dummy::{Dummy, Start};
use kiln_worker::farm::Wish;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::harness::{Farm, script, soon};

/// A farm with a guest that never comes to be, whose service is there.
async fn with_guest() -> Farm {
    let farm = Farm::on(Dummy::new(Start::Hangs));
    let fence = farm.server.offer(1, &script("echo never"));
    soon(farm.server.heard(fence, "log job")).await;
    farm
}

/// What comes back for these bytes until the connection ends.
async fn asked(farm: &Farm, request: &[u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut guest = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (theirs, _) = listener.accept().await.unwrap();
    let internal = farm.host.internal();
    tokio::spawn(async move { internal.serve(theirs).await });
    guest.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // One that resets the connection has said all that it will.
    let _ = soon(guest.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

async fn requests(farm: &Farm) -> Vec<String> {
    farm.server.until(|seen| Some(seen.requests.clone())).await
}

#[tokio::test]
async fn a_query_goes_on_with_the_jobs_token_and_no_other() {
    let mut farm = with_guest().await;
    let request = b"POST /query?x=1 HTTP/1.1\r\nHost: farm.internal\r\nAuthorization: Bearer mine\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    let answer = asked(&farm, request).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("\"2 bytes\""), "{answer}");
    assert_eq!(
        requests(&farm).await,
        ["POST /query?x=1 Bearer kiln_j_token"]
    );
    farm.wishes(Wish::Stop);
    farm.ended().await.unwrap();
}

#[tokio::test]
async fn nothing_else_of_the_server_is_reached() {
    let mut farm = with_guest().await;
    let head = "Host: farm.internal\r\nConnection: close\r\n\r\n";
    for (line, status) in [
        ("GET /worker/connect", "404"),
        ("POST /worker/lease/1/end", "404"),
        ("GET /metrics", "404"),
        ("GET /query/log/../../metrics", "404"),
        ("GET /query/log/%2e%2e/%2e%2e/metrics", "404"),
        ("GET http://elsewhere/metrics", "404"),
        ("DELETE /query", "405"),
        ("CONNECT server:443", "405"),
        ("OPTIONS *", "405"),
    ] {
        let answer = asked(&farm, format!("{line} HTTP/1.1\r\n{head}").as_bytes()).await;
        let expected = format!("HTTP/1.1 {status}");
        assert!(answer.starts_with(&expected), "{line}: {answer}");
        assert!(
            line.starts_with("HEAD") || answer.contains("\"message\""),
            "{answer}"
        );
    }
    assert!(requests(&farm).await.is_empty());
    farm.wishes(Wish::Stop);
    farm.ended().await.unwrap();
}

#[tokio::test]
async fn what_a_guest_sends_has_limits() {
    let mut farm = with_guest().await;
    let long_body = format!(
        "POST /query HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}",
        2 << 20,
        "x".repeat(2 << 20)
    );
    let long_path = format!(
        "GET /artifacts/{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "x".repeat(5000)
    );
    let long_head = format!("GET /query HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    let many = format!("GET /query HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(100));
    for (request, status) in [
        (long_path, "HTTP/1.1 414"),
        (long_head, "HTTP/1.1 431"),
        (many, "HTTP/1.1 431"),
        ("nonsense\r\n\r\n".to_owned(), "HTTP/1.1 400"),
    ] {
        let answer = asked(&farm, request.as_bytes()).await;
        assert!(answer.starts_with(status), "{status}: {answer}");
    }
    let answer = asked(&farm, long_body.as_bytes()).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 413"),
        "{answer}"
    );
    assert!(requests(&farm).await.is_empty());
    farm.wishes(Wish::Stop);
    farm.ended().await.unwrap();
}

#[tokio::test]
async fn a_farm_that_is_away_is_said_to_be() {
    let mut farm = with_guest().await;
    farm.server.go_away();
    let request = b"GET /query/log/1/log HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = asked(&farm, request).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    farm.server.come_back();
    farm.wishes(Wish::Stop);
    farm.ended().await.unwrap();
}
