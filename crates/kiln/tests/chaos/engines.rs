//! PostgreSQL, Redis and an S3 server: private ones, which can be taken away.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kiln_bus::testing::{Redis, Setup};
use kiln_objects::{S3Config, testing::S3};
use kiln_store::testing::Postgres;
use tokio::time::sleep;

use super::disk::Disk;

/// The engines' disks, in MiB: much more than a run takes.
const DISK: u32 = 1024;
/// So that PostgreSQL's log of writes stays small.
const SETTINGS: &str = "max_wal_size = 96MB\nmin_wal_size = 48MB\n";

pub struct Engines {
    /// Before the engines: they remove their directories.
    pub postgres_disk: Option<Disk>,
    pub s3_disk: Option<Disk>,
    postgres: Arc<Postgres>,
    redis: Arc<Mutex<Redis>>,
    s3: Arc<S3>,
    /// The database's URL, without any proxy.
    pub database: String,
    /// The bucket, likewise.
    pub bucket: S3Config,
}

impl Engines {
    pub async fn start() -> Self {
        let started = tokio::task::spawn_blocking(|| {
            let postgres = Postgres::start()?;
            postgres.stop()?;
            let data = postgres.directory().join("data");
            fs::write(data.join("postgresql.auto.conf"), SETTINGS)?;
            let postgres_disk = Disk::under(&data, DISK);
            postgres.start_again()?;
            let redis = Redis::start(Setup::default())?;
            let s3 = S3::start()?;
            let s3_disk = Disk::mount(s3.root(), DISK);
            let (database, bucket) = (postgres.database()?, s3.bucket()?);
            Ok::<_, io::Error>(Self {
                postgres_disk,
                s3_disk,
                postgres: Arc::new(postgres),
                redis: Arc::new(Mutex::new(redis)),
                s3: Arc::new(s3),
                database,
                bucket,
            })
        });
        started.await.expect("a thread").expect("the engines")
    }

    /// What they say of themselves: the files, and how they may be called.
    pub fn logs(&self) -> [(&'static str, PathBuf); 3] {
        let redis = self.redis.lock().unwrap_or_else(PoisonError::into_inner);
        [
            ("postgres", self.postgres.directory().join("log")),
            ("redis", redis.log()),
            ("s3", self.s3.log()),
        ]
    }

    /// Where PostgreSQL listens.
    pub fn postgres_socket(&self) -> PathBuf {
        self.postgres.directory().join(".s.PGSQL.5432")
    }

    /// The database's name.
    pub fn database_name(&self) -> &str {
        let path = self.database.split('?').next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }

    pub fn redis_address(&self) -> SocketAddr {
        let redis = self.redis.lock().unwrap_or_else(PoisonError::into_inner);
        (Ipv4Addr::LOCALHOST, redis.port()).into()
    }

    pub fn s3_address(&self) -> SocketAddr {
        self.s3.address()
    }

    /// Takes the database away for so long.
    pub async fn postgres_away(&self, crash: bool, length: Duration) {
        let (stop, start) = (Arc::clone(&self.postgres), Arc::clone(&self.postgres));
        blocking(move || if crash { stop.kill() } else { stop.stop() }).await;
        sleep(length).await;
        blocking(move || start.start_again()).await;
    }

    /// Takes the bus away.
    pub async fn redis_away(&self, length: Duration) {
        let (stop, start) = (Arc::clone(&self.redis), Arc::clone(&self.redis));
        blocking(move || stop.lock().unwrap_or_else(PoisonError::into_inner).kill()).await;
        sleep(length).await;
        blocking(move || start.lock().unwrap_or_else(PoisonError::into_inner).up()).await;
    }

    /// Takes the object store away.
    pub async fn s3_away(&self, length: Duration) {
        let (stop, start) = (Arc::clone(&self.s3), Arc::clone(&self.s3));
        blocking(move || stop.kill()).await;
        sleep(length).await;
        blocking(move || start.restart()).await;
    }
}

async fn blocking(what: impl FnOnce() -> io::Result<()> + Send + 'static) {
    let done = tokio::task::spawn_blocking(what).await.expect("a thread");
    done.expect("an engine does what it is told");
}
