//! The fake server's HTTP: a worker's reports, and whatever else is asked.

use std::{collections::HashMap, convert::Infallible};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kiln_core::{farm::Fence, job::TaskStatus};
use tokio::io::DuplexStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{Seen, Server, socket};
use crate::{
    message::CONNECT_PATH,
    report::{End, Event, Refusal, Return, SESSION_HEADER, Stored},
};

type Answer = Response<Full<Bytes>>;

pub(super) async fn serve(server: Server, stream: DuplexStream) {
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(answer(server, request).await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // Whoever goes ends it.
    let _ = connection.with_upgrades().await;
}

async fn answer(server: Server, mut request: Request<Incoming>) -> Answer {
    if request.uri().path() == CONNECT_PATH {
        return upgraded(&server, &mut request);
    }
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return json(StatusCode::BAD_REQUEST, &());
    };
    let body = body.to_bytes();
    let path = head.uri.path().to_owned();
    let Some(lease) = path.strip_prefix("/worker/lease/") else {
        let token = head.headers.get(header::AUTHORIZATION);
        let token = token.and_then(|token| token.to_str().ok()).unwrap_or("-");
        let asked = format!("{} {} {token}", head.method, head.uri);
        server.change(|seen| seen.requests.push(asked));
        return json(StatusCode::OK, &format!("{} bytes", body.len()));
    };
    let query = pairs(head.uri.query().unwrap_or_default());
    let report = lease.split_once('/').and_then(|(fence, what)| {
        head.headers.get(SESSION_HEADER)?;
        Some((fence.parse().ok()?, what))
    });
    let Some((fence, what)) = report else {
        return refused(StatusCode::BAD_REQUEST, "invalid", "no report", None);
    };
    let mut answer = None;
    server.change(|seen| answer = Some(seen.report(fence, what, &query, body)));
    let away = server.seen().away;
    match answer {
        // The connection is about to break.
        _ if away => std::future::pending().await,
        Some(answer) => answer,
        None => json(StatusCode::INTERNAL_SERVER_ERROR, &()),
    }
}

fn upgraded(server: &Server, request: &mut Request<Incoming>) -> Answer {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    let accept = derive_accept_key(key.map_or(&[], |key| key.as_bytes()));
    let upgrade = hyper::upgrade::on(request);
    let speaking = socket::speak(server.clone(), upgrade);
    server.serving().spawn(speaking);
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .body(Full::default())
        .unwrap_or_default()
}

impl Seen {
    fn report(
        &mut self,
        fence: Fence,
        what: &str,
        query: &HashMap<String, String>,
        body: Bytes,
    ) -> Answer {
        if !self.is_alive(fence) {
            self.said.push(format!("{fence} late {what}"));
            let message = "this lease has ended";
            return refused(StatusCode::CONFLICT, "lease-lost", message, None);
        }
        let answer = match what {
            "begun" => self.begun(fence),
            "event" => self.event(fence, &body),
            "log" => self.append(fence, query, &body),
            "artifact" => self.artifact(fence, query, body),
            "end" => self.ended(fence, &body),
            "return" => self.returned(fence, &body),
            _ => None,
        };
        if self.faults.lose_answers > 0 {
            self.faults.lose_answers -= 1;
            return json(StatusCode::SERVICE_UNAVAILABLE, &());
        }
        answer.unwrap_or_else(|| {
            self.said.push(format!("{fence} invalid {what}"));
            refused(
                StatusCode::BAD_REQUEST,
                "invalid",
                "it makes no sense",
                None,
            )
        })
    }

    fn begun(&mut self, fence: Fence) -> Option<Answer> {
        let lease = self.leases.get_mut(&fence)?;
        if !std::mem::replace(&mut lease.begun, true) {
            self.note(fence, "begun");
        }
        taken()
    }

    fn event(&mut self, fence: Fence, body: &[u8]) -> Option<Answer> {
        let mut answer = taken();
        let what = match serde_json::from_slice(body).ok()? {
            Event::Task { task, status } => {
                if status == TaskStatus::Running {
                    let log = self.logs.entry((fence, Some(task.clone()))).or_default();
                    if log.is_empty() {
                        log.extend_from_slice(b"[farm] first line\n");
                    }
                    let stored = log.len() as u64;
                    answer = Some(json(StatusCode::OK, &Stored { stored }));
                }
                format!("task {task} {status}")
            }
            Event::Source { index, commit } => format!("source {index} {commit}"),
            Event::Started { digest, .. } => format!("started {digest}"),
        };
        // An event that is repeated is the same.
        if self.said.last() != Some(&format!("{fence} {what}")) {
            self.note(fence, &what);
        }
        answer
    }

    fn append(
        &mut self,
        fence: Fence,
        query: &HashMap<String, String>,
        body: &[u8],
    ) -> Option<Answer> {
        if self.faults.no_space_for_logs {
            let (status, message) = (StatusCode::INSUFFICIENT_STORAGE, "the disk is full");
            return Some(refused(status, "storage-full", message, None));
        }
        let offset: usize = query.get("offset")?.parse().ok()?;
        let task = query.get("task").cloned();
        let name = task.clone().unwrap_or_else(|| "job".to_owned());
        // There is none before its task runs.
        let log = self.logs.get_mut(&(fence, task))?;
        if self.faults.say_between > 0 && !body.is_empty() {
            self.faults.say_between -= 1;
            log.extend_from_slice(b"[farm] between\n");
        }
        // What is there already is skipped, if it is the same.
        let there = log.get(offset..).unwrap_or_default();
        let there = &there[..there.len().min(body.len())];
        if offset > log.len() || !body.starts_with(there) {
            let message = "the log ends elsewhere";
            let stored = Some(log.len() as u64);
            return Some(refused(StatusCode::CONFLICT, "offset", message, stored));
        }
        let new = body[there.len()..].to_vec();
        log.extend_from_slice(&new);
        let stored = log.len() as u64;
        if !new.is_empty() {
            self.note(fence, &format!("log {name}"));
        }
        Some(json(StatusCode::OK, &Stored { stored }))
    }

    fn artifact(
        &mut self,
        fence: Fence,
        query: &HashMap<String, String>,
        body: Bytes,
    ) -> Option<Answer> {
        if let Some(message) = &self.faults.refuse_artifacts {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Some(refused(status, "too-large", message, None));
        }
        let size: usize = query.get("size")?.parse().ok()?;
        let path = query.get("path")?.clone();
        if size != body.len() || query.get("sha256")?.len() != 64 {
            return None;
        }
        self.note(fence, &format!("artifact {} {path}", query.get("index")?));
        self.artifacts.insert((fence, path), body);
        taken()
    }

    fn ended(&mut self, fence: Fence, body: &[u8]) -> Option<Answer> {
        let end: End = serde_json::from_slice(body).ok()?;
        self.note(fence, &format!("end {}", end.status));
        self.ends.insert(fence, end);
        self.leases.get_mut(&fence)?.alive = false;
        taken()
    }

    fn returned(&mut self, fence: Fence, body: &[u8]) -> Option<Answer> {
        let back: Return = serde_json::from_slice(body).ok()?;
        let lease = self.leases.get_mut(&fence)?;
        if lease.begun {
            return None;
        }
        lease.alive = false;
        self.note(fence, "return");
        self.returns.insert(fence, back);
        taken()
    }
}

fn taken() -> Option<Answer> {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    Some(answer)
}

fn refused(status: StatusCode, error: &str, message: &str, stored: Option<u64>) -> Answer {
    let refusal = Refusal {
        error: error.to_owned(),
        message: message.to_owned(),
        stored,
    };
    json(status, &refusal)
}

fn json(status: StatusCode, body: &impl serde::Serialize) -> Answer {
    let text = serde_json::to_vec(body).unwrap_or_default();
    let mut answer = Answer::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer
}

/// A query's pairs, unescaped.
fn pairs(query: &str) -> HashMap<String, String> {
    let unescaped = |text: &str| {
        let mut bytes = Vec::new();
        let mut parts = text.split('%');
        bytes.extend(parts.next().unwrap_or_default().bytes());
        for part in parts {
            let (digits, rest) = part.split_at_checked(2).unwrap_or((part, ""));
            bytes.extend(u8::from_str_radix(digits, 16).ok());
            bytes.extend(rest.bytes());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (unescaped(key), unescaped(value)))
        .collect()
}
