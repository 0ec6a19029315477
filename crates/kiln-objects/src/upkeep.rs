//! What happens to logs and artifacts after their job: packing, listing, removing.

use std::{collections::BTreeSet, io, time::SystemTime};

use kiln_core::farm::{JobId, LogName};

use crate::{Objects, disk, files};

/// Jobs whose objects are found together: a *shard* has so many, by their numbers.
pub const SHARD: i32 = 1000;

/// An object that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its key, without the farm's prefix, or its path below the directory.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// When it was last written.
    pub modified: SystemTime,
}

impl Objects {
    /// Packs a log to which nothing will be added any more, if that makes it smaller. Who
    /// reads it meanwhile, or after a crash at any point, reads the same. Gives how many bytes it
    /// takes then; to pack it again does no harm.
    ///
    /// # Errors
    /// When the disk fails; then it is as it was.
    pub async fn pack(&self, log: &LogName) -> io::Result<u64> {
        let locked = self.lock(log).await?;
        locked.pack(self.incoming()).await
    }

    /// With what the keys of all of a job's logs begin: for [`Self::remove`].
    #[must_use]
    pub fn logs_of(&self, job: JobId) -> String {
        of_job("logs", job)
    }

    /// With what the keys of all of a job's artifacts begin: for [`Self::remove`].
    #[must_use]
    pub fn artifacts_of(&self, job: JobId) -> String {
        of_job("artifacts", job)
    }

    /// An artifact's key.
    #[must_use]
    pub fn artifact_key(&self, job: JobId, index: u32) -> String {
        format!("{}{index}", self.artifacts_of(job))
    }

    /// The names of the files of which one is this log, where logs are files.
    ///
    /// # Errors
    /// When the name can't be one.
    pub fn log_files(&self, log: &LogName) -> io::Result<Vec<String>> {
        self.log_path(log)?;
        let job = self.logs_of(log.job());
        let file = match log {
            LogName::Job(_) => format!("{job}log"),
            LogName::Task(_, task) => format!("{job}tasks/{task}/log"),
        };
        let packed = format!("{file}.zst");
        Ok(vec![file, packed])
    }

    /// The shards of which something is there.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn shards(&self) -> io::Result<BTreeSet<i32>> {
        let root = self.inner.dir.clone();
        disk::blocking(move || files::shards(&root)).await
    }

    /// All logs and artifacts that are there of the jobs of a shard, which are [`SHARD`] by
    /// their numbers. What comes or goes meanwhile may be missing.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn list(&self, shard: i32) -> io::Result<Vec<Found>> {
        let root = self.inner.dir.clone();
        disk::blocking(move || files::list(&root, shard)).await
    }

    /// Removes an object, or all whose keys begin with a text that ends with a slash. What
    /// is gone already is gone.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn remove(&self, key: &str) -> io::Result<()> {
        let (root, key) = (self.inner.dir.clone(), key.to_owned());
        disk::blocking(move || files::remove(&root, &key)).await
    }

    /// The name of the farm whose all this is, as it is written there; it is written now when
    /// there is none.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn mark(&self, farm: &str) -> io::Result<String> {
        let (root, farm) = (self.inner.dir.clone(), farm.to_owned());
        disk::blocking(move || files::mark(&root, &farm)).await
    }
}

/// With what the keys of all of a job's logs begin, or of all its artifacts.
pub(crate) fn of_job(kind: &str, job: JobId) -> String {
    format!("{kind}/{}/{job}/", job.0 / SHARD)
}
