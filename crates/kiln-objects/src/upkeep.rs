//! What happens to logs and artifacts after their job: packing, listing, removing.

use std::{collections::BTreeSet, io, time::SystemTime};

use kiln_core::farm::{JobId, LogName};

use crate::{Backend, Objects};

const LOGS: &str = "logs";
const ARTIFACTS: &str = "artifacts";

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
    /// When the disk, the object store or the index fails; then it is as it was.
    pub async fn pack(&self, log: &LogName) -> io::Result<u64> {
        match &*self.backend {
            Backend::Directory(directory) => directory.pack(log).await,
            Backend::S3(s3) => s3.pack(log).await,
        }
    }

    /// Where to begin to read for this line, from 1: a byte, and the number of the line that it
    /// is of, which is not behind it. A packed log has an index for that; others are read
    /// from their begin.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn seek_line(&self, log: &LogName, line: u64) -> io::Result<(u64, u64)> {
        match &*self.backend {
            Backend::Directory(directory) => directory.seek_line(log, line).await,
            Backend::S3(s3) => s3.seek_line(log, line).await,
        }
    }

    /// With what the keys of all of a job's logs begin: for [`Self::remove`].
    #[must_use]
    pub fn logs_of(&self, job: JobId) -> String {
        of_job(LOGS, job)
    }

    /// With what the keys of all of a job's artifacts begin: for [`Self::remove`].
    #[must_use]
    pub fn artifacts_of(&self, job: JobId) -> String {
        of_job(ARTIFACTS, job)
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
        match &*self.backend {
            Backend::Directory(directory) => directory.log_files(log),
            Backend::S3(_) => Ok(Vec::new()),
        }
    }

    /// The shards of which something is there.
    ///
    /// # Errors
    /// When the disk or the object store fails.
    pub async fn shards(&self) -> io::Result<BTreeSet<i32>> {
        match &*self.backend {
            Backend::Directory(directory) => directory.shards().await,
            Backend::S3(s3) => s3.shards().await,
        }
    }

    /// All logs and artifacts that are there of the jobs of a shard, which are [`SHARD`] by
    /// their numbers. What comes or goes meanwhile may be missing.
    ///
    /// # Errors
    /// When the disk or the object store fails.
    pub async fn list(&self, shard: i32) -> io::Result<Vec<Found>> {
        match &*self.backend {
            Backend::Directory(directory) => directory.list(shard).await,
            Backend::S3(s3) => s3.list(shard).await,
        }
    }

    /// Removes an object, or all whose keys begin with a text that ends with a slash. What
    /// is gone already is gone.
    ///
    /// # Errors
    /// When the disk or the object store fails.
    pub async fn remove(&self, key: &str) -> io::Result<()> {
        if !is_ours(key) {
            let text = format!("`{key}` names nothing that may be removed");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        match &*self.backend {
            Backend::Directory(directory) => directory.remove(key).await,
            Backend::S3(s3) => s3.remove(key).await,
        }
    }

    /// The name of the farm whose all this is, as it is written there; it is written now when
    /// there is none.
    ///
    /// # Errors
    /// When the disk or the object store fails.
    pub async fn mark(&self, farm: &str) -> io::Result<String> {
        match &*self.backend {
            Backend::Directory(directory) => directory.mark(farm).await,
            Backend::S3(s3) => s3.mark(farm).await,
        }
    }
}

/// Whether that can be a key of ours, or the begin of a job's: no mistake removes more.
fn is_ours(key: &str) -> bool {
    let parts: Vec<&str> = key.strip_suffix('/').unwrap_or(key).split('/').collect();
    let named = |part: &&str| !matches!(*part, "" | "." | "..");
    parts.len() >= 3 && [LOGS, ARTIFACTS].contains(&parts[0]) && parts.iter().all(named)
}

/// With what the keys of all of a job's logs begin, or of all its artifacts.
pub(crate) fn of_job(kind: &str, job: JobId) -> String {
    format!("{kind}/{}/{job}/", job.0 / SHARD)
}
