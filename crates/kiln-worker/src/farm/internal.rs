//! `farm.internal`: what a guest sees of the farm, over its worker's connection
//! and with no more rights than its job's token.
//!
//! ```text
//! guest ─ GET /query/log/7/log ─► here ─ the same, Bearer kiln_j_… ─► server
//! ```
//!
//! What a guest sends is hostile: only the paths of [`allowed`] lead on, only the
//! headers of [`PASSED`] go along, and all of it has limits. Nothing else of the
//! server can be reached.

use std::{convert::Infallible, fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use kiln_vm::network::Farm;
use kiln_wire::{
    client::{Body, Client, full},
    report::Refusal,
};
use tokio::{net::TcpStream, time::timeout};

/// The longest body that a guest may send, in bytes.
const BODY: usize = 1 << 20;
/// The longest head.
const HEAD: usize = 16 << 10;
/// How many headers.
const HEADERS: usize = 64;
/// The longest path, with its query.
const PATH: usize = 4096;
/// How long a guest may take for a head, and between two requests.
const WAIT: Duration = Duration::from_secs(30);
/// How long the guest's body, and the server, may take until the answer begins.
const ANSWER: Duration = Duration::from_secs(60);

/// What of a guest's headers goes on.
const PASSED: [HeaderName; 7] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::RANGE,
];

/// What of the server's headers comes back.
const RETURNED: [HeaderName; 8] = [
    header::ACCEPT_RANGES,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::ETAG,
    header::LAST_MODIFIED,
];

/// The farm as one job's guest sees it.
pub(super) struct Internal {
    client: Client,
    authorization: HeaderValue,
}

impl Internal {
    /// With the job's token; nothing when that can't be one.
    pub fn new(client: Client, token: &str) -> Option<Self> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
        authorization.set_sensitive(true);
        Some(Self {
            client,
            authorization,
        })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match timeout(ANSWER, self.passed_on(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(refused)) => refused,
            Err(_) => refusal(
                StatusCode::GATEWAY_TIMEOUT,
                "the farm doesn't answer in time",
            ),
        }
    }

    async fn passed_on(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Response<Body>> {
        let (head, body) = request.into_parts();
        if !matches!(head.method, Method::GET | Method::HEAD | Method::POST) {
            let why = "only GET, HEAD and POST are answered here";
            return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, why));
        }
        let path = head.uri.path();
        if !allowed(path) {
            let why = "here are /query, /query/log/… and /artifacts/…, and nothing else";
            return Err(refusal(StatusCode::NOT_FOUND, why));
        }
        let path = head.uri.path_and_query();
        let path = path.map_or("/", http::uri::PathAndQuery::as_str);
        if path.len() > PATH {
            return Err(refusal(StatusCode::URI_TOO_LONG, "the path is too long"));
        }
        let body = collected(body).await?;
        let mut request = Request::new(full(body));
        *request.method_mut() = head.method;
        *request.uri_mut() = path
            .parse()
            .map_err(|_| refusal(StatusCode::BAD_REQUEST, "the path is none"))?;
        copy(&head.headers, &PASSED, request.headers_mut());
        let authorization = self.authorization.clone();
        request
            .headers_mut()
            .insert(header::AUTHORIZATION, authorization);
        let answer = self.client.send(request).await.map_err(|error| {
            tracing::debug!(%error, "a guest's request goes nowhere");
            refusal(StatusCode::BAD_GATEWAY, "the farm can't be reached now")
        })?;
        let (head, body) = answer.into_parts();
        let mut response = Response::new(body.map_err(std::io::Error::other).boxed());
        *response.status_mut() = match head.status {
            // Where else the server may be is nothing to a guest.
            status if status.is_redirection() && status != StatusCode::NOT_MODIFIED => {
                StatusCode::NOT_FOUND
            }
            status => status,
        };
        copy(&head.headers, &RETURNED, response.headers_mut());
        Ok(response)
    }
}

/// What a guest may ask for. The path is taken apart as a server would that
/// understands `%2e%2e` too.
fn allowed(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\\;%".contains(&byte);
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let escaped = byte == b'%' && {
            let mut digit = || char::from(bytes.next().unwrap_or(0)).to_digit(16);
            match (digit(), digit()) {
                // Separators, dots and what can't be seen need no escaping.
                (Some(high), Some(low)) => {
                    !matches!(16 * high + low, 0..=0x1f | 0x2e | 0x2f | 0x5c | 0x25 | 0x7f)
                }
                _ => false,
            }
        };
        if !escaped && !plain(byte) {
            return false;
        }
    }
    let mut segments = path.split('/').skip(1).peekable();
    if path
        .split('/')
        .skip(1)
        .any(|segment| matches!(segment, "" | "." | ".."))
    {
        return false;
    }
    match (segments.next(), segments.next()) {
        (Some("query"), None) => true,
        (Some("query"), Some("log")) | (Some("artifacts"), Some(_)) => {
            path.starts_with("/artifacts/") || segments.next().is_some()
        }
        _ => false,
    }
}

async fn collected(body: Incoming) -> Result<Bytes, Response<Body>> {
    match Limited::new(body, BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let why = "a request may have 1 MiB here";
            Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, why))
        }
        Err(_) => Err(refusal(StatusCode::BAD_REQUEST, "the request broke off")),
    }
}

fn copy(from: &HeaderMap, names: &[HeaderName], to: &mut HeaderMap) {
    for name in names {
        if let Some(value) = from.get(name) {
            to.insert(name, value.clone());
        }
    }
}

fn refusal(status: StatusCode, message: &str) -> Response<Body> {
    let error = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "too-large",
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => "unavailable",
        _ => "invalid",
    };
    let refusal = Refusal {
        error: error.to_owned(),
        message: message.to_owned(),
        stored: None,
    };
    let mut response = Response::new(full(serde_json::to_vec(&refusal).unwrap_or_default()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

impl fmt::Debug for Internal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Internal(…)")
    }
}

#[async_trait]
impl Farm for Internal {
    async fn serve(&self, connection: TcpStream) {
        let service =
            service_fn(|request| async { Ok::<_, Infallible>(self.answer(request).await) });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(WAIT)
            .max_buf_size(HEAD)
            .max_headers(HEADERS)
            .serve_connection(TokioIo::new(connection), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a guest's connection to the farm ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_logs_artifacts_and_queries_lead_on() {
        for path in [
            "/query",
            "/query/log/7/log",
            "/query/log/7/build/log",
            "/artifacts/3/a%20b.tar",
            "/artifacts/x",
        ] {
            assert!(allowed(path), "{path}");
        }
        for path in [
            "/",
            "",
            "*",
            "/worker/connect",
            "/worker/lease/1/end",
            "/metrics",
            "/graphql",
            "/query/",
            "/query/log",
            "/query/log/",
            "/query/other/1",
            "/queryx",
            "/artifacts",
            "/artifacts/",
            "//query",
            "/query/../worker/connect",
            "/query/log/../../metrics",
            "/query/log/%2e%2e/%2E%2e/metrics",
            "/query%2flog/1",
            "/artifacts/..%2f..%2fmetrics",
            "/artifacts/..",
            "/artifacts/./x",
            "/artifacts/a\\b",
            "/artifacts/%",
            "/artifacts/%4",
            "/artifacts/%zz",
            "/artifacts/%252e%252e/x",
            "/artifacts/a;b",
            "/artifacts/%00",
        ] {
            assert!(!allowed(path), "{path}");
        }
    }
}
