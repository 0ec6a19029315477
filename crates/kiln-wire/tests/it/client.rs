//! Each way to reach a server, and what is said when it can't be.

use std::{path::PathBuf, time::Duration};

use futures_util::{SinkExt, StreamExt};
use http::{Request, header};
use kiln_wire::client::{Client, ClientError, Options, Target, empty, full, read};
use tokio::{io::AsyncWriteExt, net::TcpListener, sync::mpsc};
use tokio_tungstenite::tungstenite::Message;

use crate::{proxy, server::Server};

const OPENED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

fn client(url: &str, change: impl FnOnce(&mut Options)) -> Client {
    let mut options = Options {
        token: Some("secret".into()),
        ..Options::default()
    };
    change(&mut options);
    Client::new(&Target::Url(url.to_owned()), &options).unwrap()
}

fn ca() -> Option<PathBuf> {
    Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls/ca.pem"))
}

async fn post(client: &Client) -> Result<String, ClientError> {
    let request = Request::post("/x?y=z").body(full("abc")).unwrap();
    let answer = client.send(request).await?;
    let text = read(answer.into_body(), 1000).await?;
    Ok(String::from_utf8(text.to_vec()).unwrap())
}

/// Says something over a WebSocket and gives what comes back.
async fn echoed(client: &Client) -> String {
    let mut socket = client.websocket("/socket").await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    socket.next().await.unwrap().unwrap().to_string()
}

#[tokio::test]
async fn a_url_is_reached_with_its_path_and_the_token() {
    let server = Server::default();
    let address = server.on_tcp().await;
    let client = client(&format!("http://{address}/farm/"), |_| {});
    assert_eq!(post(&client).await.unwrap(), "3 bytes");
    assert_eq!(
        server.asked(),
        [format!(
            "POST /farm/x?y=z host={address} authorization=Bearer secret proxy=-"
        )]
    );
    let request = Request::get("/").header(header::AUTHORIZATION, "Bearer other");
    client.send(request.body(empty()).unwrap()).await.unwrap();
    assert!(server.asked()[1].contains("authorization=Bearer other"));
}

#[tokio::test]
async fn a_websocket_is_opened_over_each_way() {
    let server = Server::default();
    let plain = server.on_tcp().await;
    assert_eq!(
        echoed(&client(&format!("http://{plain}"), |_| {})).await,
        "hello"
    );
    let tls = server.with_tls().await;
    let secure = client(&format!("https://localhost:{}", tls.port()), |options| {
        options.ca = ca();
    });
    assert_eq!(echoed(&secure).await, "hello");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    server.on_socket(&path);
    let unix = Client::new(&Target::Unix(path), &Options::default()).unwrap();
    assert_eq!(echoed(&unix).await, "hello");
}

#[tokio::test]
async fn tls_is_trusted_by_the_file_that_was_given_and_else_refused_with_that_remedy() {
    let server = Server::default();
    let address = server.with_tls().await;
    let url = format!("https://127.0.0.1:{}", address.port());
    let trusted = client(&url, |options| options.ca = ca());
    assert_eq!(post(&trusted).await.unwrap(), "3 bytes");
    // The host may trust nothing at all; then it is refused before anything is sent.
    let stranger = Client::new(&Target::Url(url.clone()), &Options::default());
    if let Ok(stranger) = stranger {
        let error = post(&stranger).await.unwrap_err().to_string();
        assert!(
            error.contains("certificate") && error.contains("--ca"),
            "{error}"
        );
    }
    let other = client(&format!("https://[::1]:{}", address.port()), |options| {
        options.ca = ca();
    });
    assert!(matches!(
        post(&other).await,
        Err(ClientError::Unreachable(_))
    ));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_proxy_is_asked_for_a_tunnel_to_https_and_sees_no_token() {
    let (server, seen) = (Server::default(), Server::default());
    let proxy = proxy::start(server.with_tls().await, seen.clone(), OPENED).await;
    let client = client("https://farm.test", |options| {
        options.ca = ca();
        options.proxy = Some(format!("http://me:pw@{proxy}"));
    });
    assert_eq!(post(&client).await.unwrap(), "3 bytes");
    assert_eq!(echoed(&client).await, "hello");
    let asked = "CONNECT farm.test:443 HTTP/1.1 Host: farm.test:443 \
                 Proxy-Authorization: Basic bWU6cHc=";
    assert_eq!(seen.asked(), [asked, asked]);
    assert!(server.asked()[0].ends_with("authorization=Bearer secret proxy=-"));
}

#[tokio::test]
async fn a_proxy_reads_plain_requests_along_but_for_websockets() {
    let (server, seen) = (Server::default(), Server::default());
    let proxy = proxy::start(server.on_tcp().await, seen.clone(), OPENED).await;
    let client = client("http://farm.test:8080", |options| {
        options.insecure = true;
        options.proxy = Some(format!("me:pw@{proxy}"));
    });
    assert_eq!(post(&client).await.unwrap(), "3 bytes");
    assert_eq!(echoed(&client).await, "hello");
    let asked = seen.asked();
    assert!(
        asked[0].starts_with("POST http://farm.test:8080/x?y=z HTTP/1.1"),
        "{asked:?}"
    );
    assert!(server.asked()[0].contains("proxy=Basic bWU6cHc="));
    assert!(
        asked[1].starts_with("CONNECT farm.test:8080 HTTP/1.1"),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_with_its_words() {
    let server = Server::default();
    let to = server.on_tcp().await;
    for (answer, word) in [
        ("HTTP/1.1 403 Not that host\r\n\r\n", "403 Not that host"),
        ("HTTP/1.1 407 Who?\r\n\r\n", "a user and a password"),
        ("SSH-2.0-x\r\n\r\n", "doesn't answer as a proxy"),
    ] {
        let proxy = proxy::start(to, Server::default(), answer).await;
        let client = client("https://farm.test", |options| {
            options.ca = ca();
            options.proxy = Some(proxy.to_string());
        });
        let error = post(&client).await.unwrap_err().to_string();
        assert!(
            error.contains(word) && error.contains(&proxy.to_string()),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_server_in_this_process_is_reached_without_a_network() {
    let server = Server::default();
    let (sender, mut streams) = mpsc::channel(1);
    let serving = server.clone();
    tokio::spawn(async move {
        while let Some(stream) = streams.recv().await {
            serving.serve(stream);
        }
    });
    let client = Client::new(&Target::Memory(sender), &Options::default()).unwrap();
    assert_eq!(post(&client).await.unwrap(), "3 bytes");
    assert_eq!(echoed(&client).await, "hello");
    let (sender, gone) = mpsc::channel(1);
    drop(gone);
    let client = Client::new(&Target::Memory(sender), &Options::default()).unwrap();
    let error = post(&client).await.unwrap_err().to_string();
    assert!(
        error.contains("the server in this process has ended"),
        "{error}"
    );
}

#[tokio::test]
async fn who_is_not_there_is_named_with_the_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = post(&client(&format!("http://{address}"), |_| {})).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains(&address.to_string()) && error.contains("refused"),
        "{error}"
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none");
    let unix = Client::new(&Target::Unix(path.clone()), &Options::default()).unwrap();
    let error = post(&unix).await.unwrap_err().to_string();
    assert!(
        error.contains(path.to_str().unwrap()) && error.contains("running"),
        "{error}"
    );
    let missing = Options {
        ca: Some(path),
        ..Options::default()
    };
    let made = Client::new(&Target::Url("https://localhost".into()), &missing);
    assert!(matches!(made, Err(ClientError::Wrong(_))));
}

#[tokio::test]
async fn a_websocket_that_is_refused_says_whether_to_try_again() {
    let server = Server::default();
    let address = server.on_tcp().await;
    let client = client(&format!("http://{address}"), |_| {});
    let refused = client.websocket("/refused").await.unwrap_err();
    assert!(matches!(&refused, ClientError::Wrong(why) if why.contains("no worker's")));
    let busy = client.websocket("/busy").await.unwrap_err();
    assert!(matches!(&busy, ClientError::Unreachable(why) if why.contains("503")));
    let none = client.websocket("/x").await.unwrap_err();
    assert!(matches!(none, ClientError::Wrong(_)));
}

#[tokio::test]
async fn a_connection_that_breaks_is_told_as_one_that_may_be_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
            stream.write_all(half).await.unwrap();
        }
    });
    let error = post(&client(&format!("http://{address}"), |_| {})).await;
    assert!(
        matches!(error, Err(ClientError::Unreachable(_))),
        "{error:?}"
    );
}

#[tokio::test]
async fn no_more_of_an_answer_is_read_than_was_asked_for() {
    let server = Server::default();
    let address = server.on_tcp().await;
    let client = client(&format!("http://{address}"), |_| {});
    let answer = client.send(Request::get("/long").body(empty()).unwrap());
    let answer = tokio::time::timeout(Duration::from_secs(30), answer).await;
    let long = read(answer.unwrap().unwrap().into_body(), 1000).await;
    assert!(matches!(long, Err(ClientError::Wrong(_))), "{long:?}");
}

#[test]
fn options_that_are_shown_show_no_secret() {
    let options = Options {
        token: Some("hush".into()),
        proxy: Some("http://me:hush@proxy".into()),
        ..Options::default()
    };
    assert!(!format!("{options:?}").contains("hush"));
}
