//! A server on a store in memory, with people who have tokens, and a worker by hand.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use kiln_core::farm::{Fence, Grants, JobId, Labels, OfferedImage, SessionId, UserId, WorkerId};
use kiln_server::{Config, Listener, Running};
use kiln_store::{
    Store,
    model::{Hello, LeaseKey, Mood, SessionState, TokenHash},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

/// A manifest that is as small as one can be, with two tasks.
pub(crate) const MANIFEST: &str =
    "image: debian/bookworm\ntasks:\n- one: echo one\n- two: echo two\n";

/// Every grant.
pub(crate) const ALL: &str = "JOBS:RW LOGS:RW SECRETS:RW PROFILE:RW";

/// A server.
pub(crate) struct Farm {
    pub(crate) origin: String,
    pub(crate) store: Store,
    _dir: tempfile::TempDir,
    client: Client<HttpConnector, Full<Bytes>>,
    _running: Running,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }

    pub(crate) fn json(&self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or("")
    }

    /// The message of the first error.
    pub(crate) fn error(&self) -> String {
        let message = &self.json()["errors"][0]["message"];
        message.as_str().unwrap_or_default().to_owned()
    }
}

impl Farm {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("state.db").display());
        let store = kiln_store::Config { url, migrate: true };
        let store = Store::open(&store).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let config = Config {
            objects: dir.path().join("objects").into(),
            bus: kiln_bus::Bus::in_process(),
            origin: origin.clone(),
            site_name: "a farm".into(),
            runner: "ssh.example.org".into(),
            ssh_user: "builds".into(),
            job_timeout: Duration::from_secs(2700),
            share_cap: None,
            artifact_limit: 1 << 30,
            retention: kiln_server::Retention::default(),
        };
        let listeners = vec![Listener::Tcp(listener)];
        let running = kiln_server::start(config, store.clone(), listeners).await;
        Self {
            origin,
            store,
            _dir: dir,
            client: Client::builder(TokioExecutor::new()).build_http(),
            _running: running.unwrap(),
        }
    }

    /// A new person's token with these grants.
    pub(crate) async fn person(&self, name: &str, grants: &str) -> String {
        self.somebody(name, grants, false).await
    }

    /// A new admin's token with these grants.
    pub(crate) async fn admin(&self, name: &str, grants: &str) -> String {
        self.somebody(name, grants, true).await
    }

    async fn somebody(&self, name: &str, grants: &str, admin: bool) -> String {
        let email = format!("{name}@example.org");
        let user = self.store.add_user(name, &email, admin).await.unwrap();
        self.token(user.id, grants).await
    }

    /// A further token of somebody.
    pub(crate) async fn token(&self, user: UserId, grants: &str) -> String {
        let token = format!("kiln_u_{user}_{}", grants.replace([' ', ':'], "_"));
        self.known(user, &token, grants).await;
        token
    }

    /// Makes a token of somebody known.
    pub(crate) async fn known(&self, user: UserId, token: &str, grants: &str) {
        let grants: Grants = grants.parse().unwrap();
        let added = self.store.add_token(user, hash(token), &grants, None);
        added.await.unwrap();
    }

    /// Sends anything.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let sent = tokio::time::timeout(Duration::from_secs(60), self.client.request(request));
        sent.await.expect("an answer").expect("an answer")
    }

    pub(crate) async fn reply(&self, request: Request<Full<Bytes>>) -> Reply {
        let (parts, body) = self.send(request).await.into_parts();
        let body = tokio::time::timeout(Duration::from_secs(60), body.collect());
        Reply {
            status: parts.status,
            headers: parts.headers,
            body: body.await.expect("a body").unwrap().to_bytes().to_vec(),
        }
    }

    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.origin));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(body.into())).unwrap()
    }

    /// GET.
    pub(crate) async fn get(&self, token: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.reply(self.request(Method::GET, path, token, headers, ""))
            .await
    }

    /// A query, whatever comes of it.
    pub(crate) async fn query(&self, token: &str, query: &str, variables: Value) -> Reply {
        self.query_with(token, query, variables, &[]).await
    }

    pub(crate) async fn query_with(
        &self,
        token: &str,
        query: &str,
        variables: Value,
        headers: &[(&str, &str)],
    ) -> Reply {
        let body = json!({ "query": query, "variables": variables }).to_string();
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        self.reply(self.request(Method::POST, "/query", token, &all, body))
            .await
    }

    /// A query that must succeed: its data.
    pub(crate) async fn ask(&self, token: &str, query: &str, variables: Value) -> Value {
        let reply = self.query(token, query, variables).await;
        assert_eq!(reply.status, StatusCode::OK, "{query}: {}", reply.text());
        let mut json = reply.json();
        assert!(json.get("errors").is_none(), "{query}: {json}");
        json["data"].take()
    }

    /// Submits the small manifest.
    pub(crate) async fn submit(&self, token: &str, more: &str) -> JobId {
        let query = format!("mutation($m: String!) {{ submit(manifest: $m{more}) {{ id }} }}");
        let data = self.ask(token, &query, json!({ "m": MANIFEST })).await;
        id(&data["submit"])
    }

    /// A worker that takes what is queued.
    pub(crate) async fn worker(&self, name: &str) -> Worker<'_> {
        let worker = self.store.add_worker(name, hash(&worker_token(name))).await;
        let worker = worker.unwrap().id;
        let session = SessionId::new([7; 16]);
        let labels = Labels {
            images: vec![OfferedImage {
                name: "debian/bookworm".into(),
                arch: "x86_64".into(),
                digest: "d1".into(),
                default: true,
            }],
            labels: [("ssd".to_owned(), "yes".to_owned())].into(),
        };
        let hello = Hello {
            session: session.clone(),
            version: "0.1.0".into(),
            slots: 4,
            state: SessionState {
                capacity: 4,
                labels,
                mood: Mood::Ready,
                short_of: None,
            },
            leases: vec![],
        };
        self.store.hello(worker, &hello).await.unwrap();
        Worker {
            farm: self,
            name: name.to_owned(),
            id: worker,
            session,
        }
    }
}

/// A worker, by hand.
pub(crate) struct Worker<'a> {
    farm: &'a Farm,
    name: String,
    id: WorkerId,
    session: SessionId,
}

impl Worker<'_> {
    /// The lease for a job, as soon as there is one.
    pub(crate) async fn take(&self, job: JobId) -> Fence {
        let taken = async {
            loop {
                let leases = self.farm.store.leases(&self.session).await.unwrap();
                if let Some((fence, _)) = leases.into_iter().find(|(_, of)| *of == job) {
                    return fence;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let taken = tokio::time::timeout(Duration::from_secs(20), taken).await;
        taken.expect("the farm assigns a queued job")
    }

    pub(crate) fn key(&self, fence: Fence) -> LeaseKey<'_> {
        LeaseKey {
            worker: self.id,
            session: &self.session,
            fence,
        }
    }

    /// Reports something as a worker does.
    pub(crate) async fn report(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Reply {
        let token = worker_token(&self.name);
        let headers = [
            (kiln_wire::report::SESSION_HEADER, self.session.as_str()),
            ("content-type", "application/json"),
        ];
        let request = self.farm.request(method, path, &token, &headers, body);
        self.farm.reply(request).await
    }
}

fn worker_token(name: &str) -> String {
    format!("kiln_w_{name}")
}

pub(crate) fn hash(token: &str) -> TokenHash {
    TokenHash(Sha256::digest(token).into())
}

pub(crate) fn id(job: &Value) -> JobId {
    let number = job["id"].as_i64().and_then(|id| i32::try_from(id).ok());
    JobId(number.unwrap_or_else(|| panic!("no id: {job}")))
}
