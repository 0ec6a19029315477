//! A farm without servers, in the words of the product.

use std::{
    collections::BTreeMap,
    sync::{
        LazyLock,
        atomic::{AtomicU8, Ordering},
    },
};

use kiln_core::{
    farm::{
        Fence, JobId, Labels, OfferedImage, Requirements, SessionId, TaskId, UserId, Visibility,
        WorkerId,
    },
    job::{JobStatus, TaskStatus},
};
use kiln_store::{
    Config, Store, StoreError,
    model::{Changed, Hello, Job, LeaseKey, Mood, NewJob, SessionState, TokenHash},
    testing::{self, Postgres},
};

pub const IMAGE: &str = "debian/bookworm";

/// One for all tests of this process; it ends with it.
static POSTGRES: LazyLock<Postgres> =
    LazyLock::new(|| Postgres::start().expect("PostgreSQL starts"));

pub struct Farm {
    pub store: Store,
    pub config: Config,
    _dir: Option<tempfile::TempDir>,
    numbers: AtomicU8,
}

/// A worker's process.
pub struct Builder {
    pub worker: WorkerId,
    pub session: SessionId,
}

impl Farm {
    async fn at(url: String, dir: Option<tempfile::TempDir>) -> Self {
        let config = Config { url, migrate: true };
        Self {
            store: Store::open(&config).await.expect("the store opens"),
            config,
            _dir: dir,
            numbers: AtomicU8::new(1),
        }
    }

    /// On a store that is open already.
    pub fn of(store: Store, config: Config) -> Self {
        Self {
            store,
            config,
            _dir: None,
            numbers: AtomicU8::new(1),
        }
    }

    /// A database in which nothing is.
    pub async fn empty_database(&self) -> String {
        let url = tokio::task::spawn_blocking(|| POSTGRES.database());
        url.await.unwrap().expect("a database")
    }

    pub async fn memory() -> Self {
        Self::at("sqlite::memory:".into(), None).await
    }

    pub async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/kiln.db", dir.path().display());
        Self::at(url, Some(dir)).await
    }

    pub async fn postgres() -> Self {
        let url = tokio::task::spawn_blocking(|| POSTGRES.database());
        Self::at(url.await.unwrap().expect("a database"), None).await
    }

    /// Another server's store of the same farm; in memory there can be none.
    pub async fn another_store(&self) -> Store {
        if self.config.url.contains(":memory:") {
            return self.store.clone();
        }
        Store::open(&self.config).await.expect("the store opens")
    }

    /// As a restart of PostgreSQL would.
    pub fn cut_connections(&self) {
        POSTGRES.cut_connections(&self.config.url).unwrap();
    }

    pub async fn agrees_with_itself(&self) {
        let broken = testing::broken_rules(&self.store).await.unwrap();
        assert!(broken.is_empty(), "{broken:#?}");
    }

    pub async fn pass(&self, seconds: i64) {
        testing::pass(&self.store, seconds).await.unwrap();
    }

    fn number(&self) -> u8 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub fn hash(&self) -> TokenHash {
        TokenHash([self.number(); 32])
    }

    pub async fn user(&self, name: &str) -> UserId {
        let email = format!("{name}@example.org");
        let user = self.store.add_user(name, &email, false).await;
        user.unwrap().id
    }

    /// A worker with one session that says hello.
    pub async fn builder(&self, name: &str, slots: u32) -> Builder {
        let worker = self.store.add_worker(name, self.hash()).await.unwrap().id;
        let builder = self.another_session(worker);
        self.hello(&builder, slots, state(slots), &[])
            .await
            .unwrap();
        builder
    }

    pub fn another_session(&self, worker: WorkerId) -> Builder {
        Builder {
            worker,
            session: SessionId::new([self.number(); 16]),
        }
    }

    pub async fn hello(
        &self,
        builder: &Builder,
        slots: u32,
        state: SessionState,
        leases: &[Fence],
    ) -> Result<Vec<Fence>, StoreError> {
        let hello = Hello {
            session: builder.session.clone(),
            version: "0.1.0".into(),
            slots,
            state,
            leases: leases.to_vec(),
        };
        let (lost, _) = self.store.hello(builder.worker, &hello).await?;
        Ok(lost)
    }

    /// As a server does by which renewals could be received all the time.
    pub async fn reap(&self) -> Changed {
        let heard = self.store.now().await.unwrap();
        self.store.reap(heard).await.unwrap()
    }

    pub async fn submit(&self, owner: UserId) -> JobId {
        self.submit_as(new_job(owner)).await
    }

    pub async fn submit_as(&self, job: NewJob) -> JobId {
        self.store.submit(&job).await.unwrap().0.id
    }

    /// Assigns, and gives the builder's newest lease.
    pub async fn assigned(&self, builder: &Builder) -> Fence {
        self.store.assign().await.unwrap();
        let leases = self.store.leases(&builder.session).await.unwrap();
        leases.last().expect("a lease").0
    }

    /// The jobs that a builder has leases for, in the order in which it got them.
    pub async fn held(&self, builder: &Builder) -> Vec<JobId> {
        let leases = self.store.leases(&builder.session).await.unwrap();
        leases.into_iter().map(|(_, job)| job).collect()
    }

    pub async fn job(&self, id: JobId) -> Job {
        self.store.job(id).await.unwrap().expect("the job is there")
    }

    pub async fn status(&self, id: JobId) -> JobStatus {
        self.job(id).await.status
    }

    pub async fn tasks(&self, id: JobId) -> Vec<(String, TaskStatus)> {
        let tasks = self.store.tasks(&[id]).await.unwrap();
        tasks
            .into_iter()
            .map(|task| (task.name, task.status))
            .collect()
    }

    pub async fn first_task(&self, id: JobId) -> TaskId {
        self.store.tasks(&[id]).await.unwrap()[0].id
    }

    pub async fn end(&self, builder: &Builder, fence: Fence, status: JobStatus) {
        let ended = self.store.end(builder.key(fence), status, None, &[]).await;
        ended.unwrap();
    }

    pub async fn renew(&self, builder: &Builder, leases: &[Fence]) -> Vec<Fence> {
        self.store.renew(&builder.session, leases).await.unwrap()
    }
}

impl Builder {
    pub fn key(&self, fence: Fence) -> LeaseKey<'_> {
        LeaseKey {
            worker: self.worker,
            session: &self.session,
            fence,
        }
    }
}

pub fn new_job(owner: UserId) -> NewJob {
    NewJob {
        owner,
        share: None,
        priority: 0,
        manifest: "image: debian/bookworm\n".into(),
        requirements: wanting(IMAGE),
        tasks: vec!["build".into(), "test".into()],
        note: None,
        tags: Vec::new(),
        visibility: Visibility::Unlisted,
        secrets: false,
        execute: true,
        deadline_seconds: 3600,
        idempotency: None,
    }
}

/// What a job of this image asks for.
pub fn wanting(image: &str) -> Requirements {
    Requirements::new::<&str>(image.into(), None, &[]).unwrap()
}

/// A ready worker with the one image.
pub fn state(capacity: u32) -> SessionState {
    SessionState {
        capacity,
        labels: Labels {
            images: vec![image(IMAGE)],
            labels: BTreeMap::new(),
        },
        mood: Mood::Ready,
        short_of: None,
    }
}

pub fn image(name: &str) -> OfferedImage {
    OfferedImage {
        name: name.into(),
        arch: "x86_64".into(),
        digest: "d1".into(),
        default: true,
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is asked about a call's answer"
)]
pub fn is_lost<T>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::LeaseLost))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is asked about a call's answer"
)]
pub fn is_conflict<T>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Conflict(_)))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is asked about a call's answer"
)]
pub fn is_not_found<T>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::NotFound(_)))
}
