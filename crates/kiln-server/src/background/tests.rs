//! What becomes of what ended jobs leave, pass by pass.

mod lines;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Duration,
};

use kiln_core::{
    farm::{
        Fence, JobId, Labels, LogName, OfferedImage, Requirements, SessionId, UserId, Visibility,
        WorkerId,
    },
    job::{JobStatus, TaskStatus},
};
use kiln_objects::{Objects, testing::S3};
use kiln_store::{
    Store,
    model::{Hello, LeaseKey, Mood, NewArtifact, NewJob, SessionState, TokenHash, What},
    testing,
};
use tokio::{io::AsyncReadExt as _, sync::watch};

use super::{pack, retain, sweep};
use crate::{
    Config, Retention,
    app::{logs, narrate},
    index::StoreIndex,
    state::State,
};

const DAY: i64 = 24 * 60 * 60;
const IMAGE: &str = "debian/bookworm";

/// Whose buckets tests have: one for all of this process.
static BUCKETS: LazyLock<S3> = LazyLock::new(|| S3::start().expect("s3s-fs starts"));

/// A farm's state and, as long as they are wanted, its servers without connections.
struct Farm {
    dir: tempfile::TempDir,
    objects: kiln_objects::Config,
    worker: WorkerId,
    session: SessionId,
    owner: UserId,
    server: Arc<State>,
}

impl Farm {
    async fn new(retention: Retention) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let objects = dir.path().join("objects").into();
        Self::at(dir, objects, retention).await
    }

    /// With logs and artifacts in a new bucket.
    async fn in_a_bucket(retention: Retention) -> Self {
        let server = tokio::task::spawn_blocking(|| &*BUCKETS).await.unwrap();
        let objects = kiln_objects::Config::S3(server.bucket().unwrap());
        Self::at(tempfile::tempdir().unwrap(), objects, retention).await
    }

    async fn at(
        dir: tempfile::TempDir,
        objects: kiln_objects::Config,
        retention: Retention,
    ) -> Self {
        let server = server(dir.path(), &objects, retention).await;
        let store = &server.store;
        let owner = store
            .add_user("ann", "ann@example.org", false)
            .await
            .unwrap()
            .id;
        let worker = store
            .add_worker("alder", TokenHash([1; 32]))
            .await
            .unwrap()
            .id;
        let farm = Self {
            worker,
            session: SessionId::new([1; 16]),
            owner,
            server,
            objects,
            dir,
        };
        farm.hello().await;
        farm
    }

    /// A server that is started anew, after whatever happened to the one before.
    async fn restart(&mut self) {
        self.server = self.another().await;
    }

    /// A further server.
    async fn another(&self) -> Arc<State> {
        let retention = self.server.config.retention.clone();
        server(self.dir.path(), &self.objects, retention).await
    }

    async fn hello(&self) {
        let image = OfferedImage {
            name: IMAGE.into(),
            arch: "x86_64".into(),
            digest: "d".into(),
            default: true,
        };
        let state = SessionState {
            capacity: 1,
            labels: Labels {
                images: vec![image],
                ..Labels::default()
            },
            mood: Mood::Ready,
            short_of: None,
        };
        let hello = Hello {
            session: self.session.clone(),
            version: "0.1.0".into(),
            slots: 1,
            state,
            leases: Vec::new(),
        };
        self.server.store.hello(self.worker, &hello).await.unwrap();
    }

    fn key(&self, fence: Fence) -> LeaseKey<'_> {
        LeaseKey {
            worker: self.worker,
            session: &self.session,
            fence,
        }
    }

    async fn is(&self, job: JobId, status: JobStatus) -> bool {
        self.server.store.job(job).await.unwrap().unwrap().status == status
    }

    /// A job that was given to the worker.
    async fn running(&self) -> (JobId, Fence) {
        let store = &self.server.store;
        let new = NewJob {
            owner: self.owner,
            share: None,
            priority: 0,
            manifest: "image: debian/bookworm\n".into(),
            requirements: Requirements::new::<&str>(IMAGE.into(), None, &[]).unwrap(),
            tasks: vec!["build".into()],
            note: None,
            tags: Vec::new(),
            visibility: Visibility::Public,
            secrets: false,
            execute: true,
            deadline_seconds: 3600,
            idempotency: None,
        };
        let job = store.submit(&new).await.unwrap().0.id;
        self.hello().await;
        super::assign(&self.server).await.unwrap();
        let (fence, _) = store.leases(&self.session).await.unwrap().pop().unwrap();
        (job, fence)
    }

    /// Runs a job to its end, with so much in its logs and in an artifact.
    async fn job(&self, lines: usize, artifact: usize) -> JobId {
        let store = &self.server.store;
        let (job, fence) = self.running().await;
        let key = self.key(fence);
        store.begun(key).await.unwrap();
        narrate::task(&self.server, key, job, "build")
            .await
            .unwrap();
        store
            .set_task(key, "build", TaskStatus::Running)
            .await
            .unwrap();
        for log in [LogName::Job(job), LogName::Task(job, "build".into())] {
            self.fill(&log, key, lines).await;
        }
        if artifact > 0 {
            self.artifact(job, key, artifact).await;
        }
        let ended = store.end(key, JobStatus::Success, None, &[]);
        ended.await.unwrap();
        job
    }

    async fn fill(&self, log: &LogName, key: LeaseKey<'_>, lines: usize) {
        let objects = &self.server.objects;
        let at = objects.stored(log).await.unwrap();
        let text: String = (0..lines)
            .map(|line| format!("line {line} of it\n"))
            .collect();
        objects.append(key, log, at, text.into()).await.unwrap();
    }

    async fn artifact(&self, job: JobId, key: LeaseKey<'_>, size: usize) {
        use sha2::{Digest as _, Sha256};

        let bytes = vec![7; size];
        let digest: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mut body = &bytes[..];
        let objects = &self.server.objects;
        let put = objects.put_artifact(job, 0, &mut body, size as u64, &digest);
        put.await.unwrap();
        let new = NewArtifact {
            index: 0,
            path: "a".into(),
            size: size as u64,
            sha256: digest,
        };
        self.server.store.add_artifact(key, &new).await.unwrap();
    }

    async fn pass(&self, seconds: i64) {
        testing::pass(&self.server.store, seconds).await.unwrap();
    }

    /// All that there is in a job's logs.
    async fn logs(&self, job: JobId) -> Vec<String> {
        let mut all = Vec::new();
        for log in [LogName::Job(job), LogName::Task(job, "build".into())] {
            let mut text = String::new();
            let mut reader = self.server.objects.read(&log, 0, u64::MAX).await.unwrap();
            reader.read_to_string(&mut text).await.unwrap();
            all.push(text);
        }
        all
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("objects").join(path)
    }

    async fn has_artifact(&self, job: JobId) -> bool {
        self.server.objects.artifact(job, 0, 0, 1).await.is_ok()
    }

    async fn missing(&self) -> Vec<String> {
        let found = sweep::compare(&self.server.store, &self.server.objects).await;
        found.unwrap().missing
    }

    /// A whole round, in which what is older than this and nobody's goes.
    /// One whole round.
    async fn sweep(&self, grace: Duration) {
        for every in [Duration::ZERO].into_iter().chain([sweep::EVERY; 9]) {
            sweep::swept(&self.server, grace, every).await.unwrap();
        }
    }

    async fn agrees_with_itself(&self) {
        let broken = testing::broken_rules(&self.server.store).await.unwrap();
        assert!(broken.is_empty(), "{broken:#?}");
        assert_eq!(self.missing().await, [""; 0]);
    }
}

async fn server(dir: &Path, objects: &kiln_objects::Config, retention: Retention) -> Arc<State> {
    let url = format!("sqlite://{}/kiln.db", dir.display());
    let config = kiln_store::Config { url, migrate: true };
    let store = Store::open(&config).await.unwrap();
    let index = Arc::new(StoreIndex(store.clone()));
    let config = Config {
        objects: objects.clone(),
        bus: kiln_bus::Bus::in_process(),
        origin: "http://farm.test".into(),
        site_name: "kiln".into(),
        runner: "farm.test".into(),
        ssh_user: "builds".into(),
        job_timeout: Duration::from_hours(1),
        share_cap: None,
        artifact_limit: 1 << 30,
        retention,
    };
    let objects = Objects::at(objects.clone(), index).await.unwrap();
    // Without a sender it would be taken for one that ends.
    let (stop, stopping) = watch::channel(false);
    std::mem::forget(stop);
    Arc::new(State::new(config, store, objects, stopping).unwrap())
}

fn for_days(days: u64) -> Option<Duration> {
    Some(Duration::from_hours(days * 24))
}

#[tokio::test]
async fn the_logs_of_an_ended_job_are_packed_and_read_as_before() {
    let mut farm = Farm::new(Retention::default()).await;
    let job = farm.job(2000, 0).await;
    let before = farm.logs(job).await;
    pack::pass(&farm.server).await.unwrap();
    assert!(farm.path("logs/0/1/log").exists(), "it ended just now");
    farm.pass(61).await;
    pack::pass(&farm.server).await.unwrap();
    assert!(!farm.path("logs/0/1/log").exists());
    assert!(farm.path("logs/0/1/tasks/build/log.zst").exists());
    assert_eq!(farm.logs(job).await, before);
    farm.restart().await;
    assert_eq!(farm.logs(job).await, before);
    farm.agrees_with_itself().await;
}

#[tokio::test]
async fn a_server_that_died_while_it_packed_leaves_all_to_the_next() {
    let mut farm = Farm::new(Retention::default()).await;
    let job = farm.job(2000, 0).await;
    let before = farm.logs(job).await;
    farm.pass(61).await;
    // One log is packed, the other not; that is not noted.
    farm.server.objects.pack(&LogName::Job(job)).await.unwrap();
    farm.restart().await;
    assert_eq!(farm.logs(job).await, before);
    // All are packed; that is not noted.
    let task = LogName::Task(job, "build".into());
    farm.server.objects.pack(&task).await.unwrap();
    farm.restart().await;
    assert_eq!(farm.logs(job).await, before);
    farm.agrees_with_itself().await;
    farm.pass(121).await;
    pack::pass(&farm.server).await.unwrap();
    assert_eq!(farm.logs(job).await, before);
    assert_eq!(farm.server.metrics.packed.get(), 1);
    farm.agrees_with_itself().await;
}

#[tokio::test]
async fn what_can_not_be_packed_keeps_nobody_waiting() {
    let mut farm = Farm::new(Retention::default()).await;
    let broken = farm.job(2000, 0).await;
    let whole = farm.job(2000, 0).await;
    farm.pass(61).await;
    // A directory where the packed log should come.
    std::fs::create_dir_all(farm.path("logs/0/1/log.zst/in-the-way")).unwrap();
    let before = farm.logs(broken).await;
    pack::pass(&farm.server).await.unwrap();
    assert_eq!(farm.server.metrics.packed.get(), 1);
    assert!(farm.path("logs/0/2/log.zst").exists());
    assert_eq!(farm.logs(broken).await, before);
    let store = farm.server.store.clone();
    let left = async || store.to_pack(store.now().await.unwrap(), None, 9).await;
    assert_eq!(left().await.unwrap().len(), 1);
    assert_ne!(broken, whole);
    // What it keeps is counted all the same, some time later, and so removed in its time.
    farm.restart().await;
    farm.pass(DAY).await;
    pack::pass(&farm.server).await.unwrap();
    assert_eq!(left().await.unwrap().len(), 0);
    let (what, now) = (What::Logs, store.now().await.unwrap());
    let kept = store.kept_until(what, now, 9).await.unwrap();
    assert!(kept.contains(&broken), "{kept:?}");
    assert_eq!(farm.logs(broken).await, before);
}

#[tokio::test]
async fn what_was_kept_long_enough_is_removed() {
    let farm = Farm::new(Retention {
        logs: for_days(365),
        artifacts: for_days(90),
        of_owner: None,
    })
    .await;
    let job = farm.job(2000, 5000).await;
    let small = farm.job(1, 0).await;
    farm.pass(91 * DAY).await;
    let young = farm.job(2000, 5000).await;
    farm.pass(61).await;
    pack::pass(&farm.server).await.unwrap();
    retain::pass(&farm.server).await.unwrap();
    // The row says so first.
    let artifacts = farm.server.store.artifacts(&[job, young]).await.unwrap();
    let pruned: Vec<_> = artifacts.iter().map(|artifact| artifact.pruned).collect();
    assert_eq!(pruned, [true, false]);
    assert!(farm.has_artifact(job).await);
    retain::collect(&farm.server).await.unwrap();
    assert!(!farm.has_artifact(job).await);
    assert!(farm.has_artifact(young).await);
    assert!(farm.logs(job).await[0].contains("line 1999"));
    farm.agrees_with_itself().await;

    farm.pass(300 * DAY).await;
    retain::pass(&farm.server).await.unwrap();
    retain::collect(&farm.server).await.unwrap();
    for (job, removed) in [(job, true), (small, true), (young, false)] {
        let found = farm.server.store.job(job).await.unwrap().unwrap();
        assert_eq!(found.logs_removed.is_some(), removed);
        let log = logs::of_job(&found);
        let text = log.tail(&farm.server, 1000).await.unwrap();
        assert_eq!(
            text.starts_with("[kiln] this log was removed"),
            removed,
            "{text}"
        );
        assert_eq!(log.length(&farm.server).await.unwrap() < 100, removed);
    }
    assert!(!farm.path("logs/0/1").exists() && farm.path("logs/0/3").exists());
    farm.agrees_with_itself().await;
}

#[tokio::test]
async fn an_owner_keeps_so_much_and_no_more() {
    let farm = Farm::new(Retention {
        of_owner: Some(7000),
        ..Retention::default()
    })
    .await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(farm.job(1, 3000).await);
        farm.pass(61).await;
    }
    pack::pass(&farm.server).await.unwrap();
    retain::pass(&farm.server).await.unwrap();
    retain::collect(&farm.server).await.unwrap();
    assert!(!farm.has_artifact(jobs[0]).await);
    assert!(farm.has_artifact(jobs[1]).await && farm.has_artifact(jobs[2]).await);
    assert!(farm.logs(jobs[0]).await[0].contains("line 0"));
    farm.agrees_with_itself().await;
}

#[tokio::test]
async fn a_server_that_died_while_it_removed_leaves_nothing_behind() {
    let mut farm = Farm::new(Retention {
        artifacts: for_days(90),
        ..Retention::default()
    })
    .await;
    let job = farm.job(2000, 5000).await;
    farm.pass(91 * DAY).await;
    pack::pass(&farm.server).await.unwrap();
    // Between the rows and the objects.
    retain::pass(&farm.server).await.unwrap();
    farm.restart().await;
    assert!(farm.has_artifact(job).await);
    farm.agrees_with_itself().await;
    farm.pass(121).await;
    // Between the objects and the note that they are gone.
    let garbage = farm.server.store.garbage(9).await.unwrap();
    farm.server.objects.remove(&garbage[0]).await.unwrap();
    farm.restart().await;
    retain::collect(&farm.server).await.unwrap();
    assert!(!farm.has_artifact(job).await);
    assert_eq!(farm.server.store.garbage(9).await.unwrap(), [""; 0]);
    farm.agrees_with_itself().await;
}

#[tokio::test]
async fn the_sweep_removes_just_what_is_nobodys() {
    let mut farm = Farm::new(Retention::default()).await;
    let job = farm.job(2000, 5000).await;
    let packed = farm.job(2000, 5000).await;
    farm.server
        .objects
        .pack(&LogName::Job(packed))
        .await
        .unwrap();
    let before = (farm.logs(job).await, farm.logs(packed).await);
    let orphans = [
        "artifacts/0/1/7",
        "artifacts/0/900/0",
        "artifacts/77/77001/0",
        "logs/0/1/strange",
        "logs/0/1/tasks/none/log",
        "logs/77/77001/log",
    ];
    for orphan in orphans {
        std::fs::create_dir_all(farm.path(orphan).parent().unwrap()).unwrap();
        std::fs::write(farm.path(orphan), "x").unwrap();
    }
    let found = sweep::compare(&farm.server.store, &farm.server.objects)
        .await
        .unwrap();
    assert_eq!(
        (found.orphans, found.objects),
        (Vec::new(), 6 + orphans.len() as u64)
    );
    // They are young.
    farm.sweep(sweep::GRACE).await;
    assert!(orphans.iter().all(|orphan| farm.path(orphan).exists()));
    farm.restart().await;
    farm.sweep(Duration::ZERO).await;
    // It may be on its way, whatever the clocks say: the round after this removes it.
    assert!(orphans.iter().all(|orphan| farm.path(orphan).exists()));
    farm.sweep(Duration::ZERO).await;
    for orphan in orphans {
        assert!(!farm.path(orphan).exists(), "{orphan}");
    }
    assert_eq!(farm.server.metrics.orphans.get(), orphans.len() as u64);
    assert_eq!((farm.logs(job).await, farm.logs(packed).await), before);
    assert!(farm.has_artifact(job).await);
    farm.agrees_with_itself().await;
}

#[tokio::test]
async fn what_is_missing_is_told() {
    let farm = Farm::new(Retention::default()).await;
    for _ in 0..3 {
        farm.job(2000, 5000).await;
    }
    std::fs::remove_file(farm.path("artifacts/0/1/0")).unwrap();
    std::fs::write(farm.path("artifacts/0/2/0"), "short").unwrap();
    std::fs::remove_file(farm.path("logs/0/3/log")).unwrap();
    let told = [
        "artifacts/0/1/0 is missing: it should have 5000 bytes",
        "artifacts/0/2/0 has 5 bytes, and should have 5000",
        "logs/0/3/log is missing, or empty",
    ];
    assert_eq!(farm.missing().await, told);
    farm.sweep(sweep::GRACE).await;
    assert_eq!(farm.server.metrics.missing.get(), 3);
}

#[tokio::test]
async fn nothing_is_removed_where_another_farms_name_is_written() {
    let farm = Farm::new(Retention::default()).await;
    farm.job(1, 5000).await;
    farm.sweep(Duration::ZERO).await;
    // Another database, empty, and the same objects.
    let other = tempfile::tempdir().unwrap();
    let stranger = server(other.path(), &farm.objects, Retention::default()).await;
    let refused = sweep::swept(&stranger, Duration::ZERO, sweep::EVERY)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("another farm's"), "{refused}");
    // A farm that was pointed at them later: its jobs have the same numbers.
    let mut other = Farm::new(Retention {
        logs: for_days(1),
        ..Retention::default()
    })
    .await;
    other.job(1, 5000).await;
    other.pass(61).await;
    pack::pass(&other.server).await.unwrap();
    other.pass(2 * DAY).await;
    retain::pass(&other.server).await.unwrap();
    other.objects = farm.objects.clone();
    other.restart().await;
    let refused = retain::collect(&other.server).await.unwrap_err();
    assert!(refused.to_string().contains("another farm's"), "{refused}");
    farm.agrees_with_itself().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_pack_what_is_in_a_bucket_once() {
    let mut farm = Farm::in_a_bucket(Retention::default()).await;
    let mut before = Vec::new();
    for _ in 0..5 {
        let job = farm.job(2000, 0).await;
        before.push((job, farm.logs(job).await));
    }
    farm.pass(61).await;
    let other = farm.another().await;
    let (one, two) = tokio::join!(pack::pass(&farm.server), pack::pass(&other));
    one.and(two).unwrap();
    let packed = farm.server.metrics.packed.get() + other.metrics.packed.get();
    assert_eq!(packed, 5);
    for (job, logs) in &before {
        assert_eq!(farm.logs(*job).await, *logs);
    }
    farm.agrees_with_itself().await;
    // The pieces go some minutes later, and nothing else does.
    let all = sweep::compare(&farm.server.store, &farm.server.objects);
    assert_eq!(all.await.unwrap().objects, 20);
    retain::collect(&farm.server).await.unwrap();
    farm.pass(601).await;
    retain::collect(&farm.server).await.unwrap();
    let all = sweep::compare(&farm.server.store, &farm.server.objects);
    assert_eq!(all.await.unwrap().objects, 10);
    farm.restart().await;
    for (job, logs) in &before {
        assert_eq!(farm.logs(*job).await, *logs);
    }
    farm.agrees_with_itself().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_a_bucket_is_removed_and_swept_too() {
    let mut farm = Farm::in_a_bucket(Retention {
        logs: for_days(365),
        artifacts: for_days(90),
        of_owner: None,
    })
    .await;
    let old = farm.job(2000, 5000).await;
    farm.pass(366 * DAY).await;
    let young = farm.job(2000, 5000).await;
    let before = farm.logs(young).await;
    farm.pass(61).await;
    pack::pass(&farm.server).await.unwrap();
    retain::pass(&farm.server).await.unwrap();
    // Between the rows and the objects.
    farm.restart().await;
    farm.agrees_with_itself().await;
    farm.pass(601).await;
    retain::collect(&farm.server).await.unwrap();
    assert!(!farm.has_artifact(old).await && farm.has_artifact(young).await);
    let all = sweep::compare(&farm.server.store, &farm.server.objects);
    assert_eq!(all.await.unwrap().objects, 3);
    // What a server that died left: an artifact without a row.
    let sha256 = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    for job in [young, JobId(77_001)] {
        let mut body = &b"x"[..];
        let put = farm
            .server
            .objects
            .put_artifact(job, 9, &mut body, 1, sha256);
        put.await.unwrap();
    }
    farm.sweep(sweep::GRACE).await;
    assert_eq!(farm.server.metrics.orphans.get(), 0);
    farm.restart().await;
    farm.sweep(Duration::ZERO).await;
    assert_eq!(farm.server.metrics.orphans.get(), 0, "it may be on its way");
    farm.sweep(Duration::ZERO).await;
    assert_eq!(farm.server.metrics.orphans.get(), 2);
    assert_eq!(farm.logs(young).await, before);
    assert!(farm.has_artifact(young).await);
    farm.agrees_with_itself().await;
    let gone = farm.server.objects.list(0).await.unwrap();
    farm.server.objects.remove(&gone[0].key).await.unwrap();
    assert_eq!(farm.missing().await.len(), 1);
}
