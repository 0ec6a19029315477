//! What a farm of several servers stands on: engines of a benchmark's own, and the versions
//! of all that is measured.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context as _, Result};
use kiln_bus::testing::{Redis, Setup};
use kiln_objects::{S3Config, testing::S3};
use kiln_store::testing::Postgres;
use tempfile::TempDir;

use crate::{celery, farm::Farm};

/// A PostgreSQL with fsync, an S3 server that checks signatures, and a Redis.
pub struct Engines {
    postgres: Postgres,
    s3: S3,
    redis: Redis,
    dir: TempDir,
}

impl Engines {
    pub fn start() -> Result<Self> {
        Ok(Self {
            postgres: Postgres::start_durable()?,
            s3: S3::start()?,
            redis: Redis::start(Setup::default())?,
            dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?,
        })
    }

    /// A farm of one server in a new database and a new bucket, with or without the bus.
    pub async fn farm(&self, bus: bool) -> Result<Farm> {
        let bucket = self.bucket()?;
        let secret = self.dir.path().join("s3-secret");
        fs::write(&secret, &bucket.secret_key)?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        let mut words = vec![
            format!("--objects=s3://{}/{}", bucket.bucket, bucket.prefix),
            format!("--s3-endpoint={}", bucket.endpoint.context("a URL")?),
            format!("--s3-access-key={}", bucket.access_key),
            format!("--s3-secret-key-file={}", secret.display()),
        ];
        if bus {
            words.push(format!("--bus={}", self.redis.url()));
        }
        Farm::start(Some(&self.postgres.database()?), &words).await
    }

    /// An empty bucket.
    pub fn bucket(&self) -> Result<S3Config> {
        Ok(self.s3.bucket()?)
    }
}

/// What says its version when it is asked: the engines, and what Celery runs on.
pub fn programs() -> Result<Vec<String>> {
    let postgres = Postgres::program("postgres")?;
    let mut programs = vec![postgres.to_string_lossy().into_owned()];
    programs.extend(["redis-server", "s3s-fs", "python3"].map(str::to_owned));
    Ok(programs)
}

/// What is installed from PyPI: a name and a version each.
pub fn packages() -> impl Iterator<Item = (&'static str, &'static str)> {
    let packages = celery::PACKAGES.iter();
    packages.filter_map(|package| package.split_once("=="))
}
