//! A farm in memory, and workers that speak the wire by hand.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request, StatusCode};
use kiln_core::{
    farm::{Fence, JobId, OfferedImage, Requirements, SessionId, UserId, Visibility, limits},
    job::{JobStatus, TaskStatus},
};
use kiln_objects::{
    LogName, Objects,
    testing::{MemoryIndex, S3},
};
use kiln_server::{Config, Listener, Running};
use kiln_store::{
    Store,
    model::{Job, NewJob, TokenHash},
    testing::Postgres,
};
use kiln_wire::{
    client::{Body, Client, ClientError, Options, Target, empty, full},
    live::Live,
    message::{CONNECT_PATH, FromServer, FromWorker, Hello, Mood, Offer, PROTOCOL, State},
    report::{End, Event, Refusal, SESSION_HEADER, Stored},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::{io::DuplexStream, sync::mpsc, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

/// Longer than anything here takes: what waits so long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) const MANIFEST: &str = "\
image: debian/stable
sources: [https://example.org/source]
tasks: [{one: 'true'}, {two: 'true'}]
artifacts: [out.txt, other.txt]
";

/// A server on a store in memory.
pub(crate) struct Farm {
    pub(crate) store: Store,
    pub(crate) dir: tempfile::TempDir,
    owner: UserId,
    config: Config,
    memory: mpsc::Sender<DuplexStream>,
    running: Option<Running>,
}

/// Engines for all tests of this process; they end with it.
static POSTGRES: LazyLock<Postgres> = LazyLock::new(|| Postgres::start().unwrap());
static OBJECT_STORE: LazyLock<S3> = LazyLock::new(|| S3::start().unwrap());

pub(crate) fn config(dir: &Path) -> Config {
    Config {
        objects: dir.join("objects").into(),
        bus: kiln_bus::Bus::in_process(),
        origin: "https://farm.example.org".to_owned(),
        site_name: "a farm".to_owned(),
        runner: "farm.example.org".to_owned(),
        ssh_user: "builds".to_owned(),
        job_timeout: Duration::from_mins(45),
        share_cap: None,
        artifact_limit: 1 << 20,
        retention: kiln_server::Retention::default(),
    }
}

fn hash(token: &str) -> TokenHash {
    TokenHash(Sha256::digest(token).into())
}

impl Farm {
    pub(crate) async fn new() -> Self {
        Self::with("sqlite::memory:".to_owned(), |_| {}).await
    }

    /// One on PostgreSQL, with logs and artifacts in S3.
    pub(crate) async fn on_engines() -> Self {
        let engines = tokio::task::spawn_blocking(|| {
            (POSTGRES.database().unwrap(), OBJECT_STORE.bucket().unwrap())
        });
        let (url, bucket) = engines.await.unwrap();
        Self::with(url, |config| {
            config.objects = kiln_objects::Config::S3(bucket);
        })
        .await
    }

    async fn with(url: String, change: impl FnOnce(&mut Config)) -> Self {
        let store = kiln_store::Config { url, migrate: true };
        let store = Store::open(&store).await.unwrap();
        let owner = store.add_user("ann", "ann@example.org", false).await;
        Self::on(store, owner.unwrap().id, change).await
    }

    /// A server of this farm, which may have others.
    pub(crate) async fn on(store: Store, owner: UserId, change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (memory, streams) = mpsc::channel(8);
        let listeners = vec![Listener::Memory(streams)];
        let mut config = config(dir.path());
        change(&mut config);
        let running = kiln_server::start(config.clone(), store.clone(), listeners).await;
        Self {
            store,
            dir,
            config,
            owner,
            memory,
            running: Some(running.unwrap()),
        }
    }

    /// Ends the server as a kill does, and starts another.
    pub(crate) async fn restart(&mut self) {
        drop(self.running.take());
        let (memory, streams) = mpsc::channel(8);
        let listeners = vec![Listener::Memory(streams)];
        let config = self.config.clone();
        let running = kiln_server::start(config, self.store.clone(), listeners).await;
        self.running = Some(running.unwrap());
        self.memory = memory;
    }

    pub(crate) fn take(&mut self) -> Running {
        self.running.take().unwrap()
    }

    /// A worker's registration and its token.
    pub(crate) async fn registered(&self, name: &str) -> String {
        let token = format!("kiln_w_{name}");
        self.store.add_worker(name, hash(&token)).await.unwrap();
        token
    }

    /// A person's token.
    pub(crate) async fn person(&self) -> String {
        let token = "kiln_u_somebody".to_owned();
        let grants = kiln_core::farm::Grants::all();
        let added = self
            .store
            .add_token(self.owner, hash(&token), &grants, None);
        added.await.unwrap();
        token
    }

    pub(crate) fn client(&self, token: Option<&str>) -> Client {
        let options = Options {
            token: token.map(str::to_owned),
            ..Options::default()
        };
        Client::new(&Target::Memory(self.memory.clone()), &options).unwrap()
    }

    /// Submits a job.
    pub(crate) async fn submit(&self, manifest: &str) -> JobId {
        let job = NewJob {
            owner: self.owner,
            share: None,
            priority: 0,
            manifest: manifest.to_owned(),
            requirements: Requirements::new("debian/stable".to_owned(), None, &[""; 0]).unwrap(),
            tasks: vec!["one".to_owned(), "two".to_owned()],
            note: None,
            tags: Vec::new(),
            visibility: Visibility::Unlisted,
            secrets: false,
            execute: true,
            deadline_seconds: 600,
            idempotency: None,
        };
        self.store.submit(&job).await.unwrap().0.id
    }

    pub(crate) async fn job(&self, id: JobId) -> Job {
        self.store.job(id).await.unwrap().unwrap()
    }

    /// Waits until a job is like this.
    pub(crate) async fn until(&self, id: JobId, status: JobStatus) -> Job {
        let waits = async {
            loop {
                let job = self.job(id).await;
                if job.status == status {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LONG, waits).await.expect("the job becomes so")
    }

    /// A log as a reader after a crash would find it.
    pub(crate) fn log(&self, job: JobId, task: Option<&str>) -> String {
        let job = self.dir.path().join(format!("objects/logs/0/{job}"));
        let path = match task {
            None => job.join("log"),
            Some(task) => job.join("tasks").join(task).join("log"),
        };
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// What another process would read: only to look, never beside a server that writes.
    pub(crate) async fn stored(&self, log: &LogName) -> u64 {
        let index = Arc::new(MemoryIndex::new(log.job()));
        let objects = Objects::open(&self.dir.path().join("objects"), index).await;
        objects.unwrap().stored(log).await.unwrap()
    }

    /// A worker that is here, with one slot.
    pub(crate) async fn worker(&self, name: &str) -> Worker {
        let token = self.registered(name).await;
        let mut worker = self.start(&token, 1).await;
        worker.welcomed().await;
        worker
    }

    /// A start of a worker, which has said hello.
    pub(crate) async fn start(&self, token: &str, session: u8) -> Worker {
        let hello = hello(session);
        let mut worker = self.connected(token, &hello.session).await;
        worker.say(&FromWorker::Hello(hello)).await;
        worker
    }

    /// A start of a worker that has not said hello.
    pub(crate) async fn connected(&self, token: &str, session: &SessionId) -> Worker {
        let (near, far) = tokio::io::duplex(64 << 10);
        self.memory.send(far).await.unwrap();
        let url = format!("ws://farm{CONNECT_PATH}");
        let mut request = url.into_client_request().unwrap();
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", bearer);
        let (socket, _) = client_async(request, near).await.unwrap();
        Worker {
            socket,
            client: self.client(Some(token)),
            session: session.clone(),
        }
    }

    /// A worker with a job: its lease.
    pub(crate) async fn leased(&self) -> (Worker, Offer) {
        self.submit(MANIFEST).await;
        let mut worker = self.worker("one").await;
        let offer = worker.offered().await;
        (worker, offer)
    }

    /// A worker with a job whose first task may start.
    pub(crate) async fn begun(&self) -> (Worker, Offer) {
        let (worker, offer) = self.leased().await;
        worker.report(offer.fence, "begun", empty()).await.done();
        (worker, offer)
    }
}

pub(crate) fn hello(session: u8) -> Hello {
    Hello {
        protocol: PROTOCOL,
        version: "0.1.0".to_owned(),
        session: SessionId::new([session; 16]),
        slots: 1,
        labels: BTreeMap::new(),
        state: ready(),
        leases: Vec::new(),
    }
}

pub(crate) fn ready() -> State {
    State {
        capacity: 1,
        images: vec![OfferedImage {
            name: "debian/stable".to_owned(),
            arch: "x86_64".to_owned(),
            digest: "d1".to_owned(),
            default: true,
        }],
        mood: Mood::Ready,
        short_of: None,
    }
}

/// One start of a worker.
pub(crate) struct Worker {
    pub(crate) socket: WebSocketStream<DuplexStream>,
    pub(crate) client: Client,
    pub(crate) session: SessionId,
}

impl Worker {
    pub(crate) async fn say(&mut self, message: &FromWorker) {
        let text = serde_json::to_string(message).unwrap();
        self.say_text(&text).await;
    }

    pub(crate) async fn say_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// Sends bytes of a log early, and waits until they were passed on.
    pub(crate) async fn early(
        &mut self,
        fence: Fence,
        task: &str,
        offset: u64,
        text: &'static str,
    ) {
        let live = Live {
            fence,
            offset,
            task: task.to_owned(),
            bytes: text.into(),
        };
        let message = Message::binary(live.message());
        self.socket.send(message).await.unwrap();
        assert_eq!(self.next().await, FromServer::Passed);
    }

    /// What the server sends next.
    pub(crate) async fn frame(&mut self) -> Message {
        let next = timeout(LONG, self.socket.next()).await;
        next.expect("the server says something").unwrap().unwrap()
    }

    pub(crate) async fn next(&mut self) -> FromServer {
        let text = self.frame().await.into_text().unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The leases of its hello that are lost.
    pub(crate) async fn welcomed(&mut self) -> Vec<Fence> {
        match self.next().await {
            FromServer::Welcome {
                lost,
                protocol,
                renew_seconds,
                ..
            } => {
                assert_eq!((protocol, renew_seconds), (PROTOCOL, limits::RENEW_SECONDS));
                lost
            }
            other => panic!("no welcome: {other:?}"),
        }
    }

    pub(crate) async fn refused(&mut self) -> (String, bool) {
        let refused = match self.next().await {
            FromServer::Refused { reason, again } => (reason, again),
            other => panic!("no refusal: {other:?}"),
        };
        assert!(matches!(self.frame().await, Message::Close(_)));
        refused
    }

    pub(crate) async fn offered(&mut self) -> Offer {
        match self.next().await {
            FromServer::Offer(offer) => *offer,
            other => panic!("no offer: {other:?}"),
        }
    }

    /// Reports under a lease.
    pub(crate) async fn report(&self, fence: Fence, what: &str, body: Body) -> Answer {
        let put = what.starts_with("log") || what.starts_with("artifact");
        let method = if put { Method::PUT } else { Method::POST };
        let request = Request::builder()
            .method(method)
            .uri(format!("/worker/lease/{fence}/{what}"))
            .header(SESSION_HEADER, self.session.as_str())
            .header("content-type", "application/json");
        Answer::to(&self.client, request.body(body).unwrap())
            .await
            .unwrap()
    }

    pub(crate) async fn json(&self, fence: Fence, what: &str, words: &impl Serialize) -> Answer {
        let body = full(serde_json::to_vec(words).unwrap());
        self.report(fence, what, body).await
    }

    pub(crate) async fn append(&self, fence: Fence, place: &str, bytes: &'static str) -> Answer {
        self.report(fence, &format!("log?offset={place}"), full(bytes))
            .await
    }

    pub(crate) async fn task(&self, fence: Fence, task: &str, status: TaskStatus) -> Answer {
        let event = Event::Task {
            task: task.to_owned(),
            status,
        };
        self.json(fence, "event", &event).await
    }

    pub(crate) async fn end(&self, fence: Fence, status: JobStatus) -> Answer {
        let end = End {
            status,
            reason: None,
            tasks: Vec::new(),
        };
        self.json(fence, "end", &end).await
    }
}

/// An answer to a report.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) async fn to(client: &Client, request: Request<Body>) -> Result<Self, ClientError> {
        let answer = timeout(LONG, client.send(request))
            .await
            .expect("an answer")?;
        let status = answer.status();
        let body = kiln_wire::client::read(answer.into_body(), 1 << 20).await?;
        Ok(Self {
            status,
            body: body.to_vec(),
        })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Taken, whatever else it says.
    #[track_caller]
    pub(crate) fn done(&self) {
        assert!(self.status.is_success(), "{} {}", self.status, self.text());
    }

    #[track_caller]
    pub(crate) fn stored(&self) -> u64 {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        serde_json::from_slice::<Stored>(&self.body).unwrap().stored
    }

    /// Refused like this, with a sentence.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, error: &str) -> Refusal {
        let text = self.text();
        let refusal: Refusal = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"));
        assert_eq!(
            (self.status.as_u16(), refusal.error.as_str()),
            (status, error),
            "{text}"
        );
        assert!(!refusal.message.is_empty());
        refusal
    }
}
