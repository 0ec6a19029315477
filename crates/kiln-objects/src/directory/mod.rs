//! Logs and artifacts as files of one directory.
//!
//! ```text
//! objects/
//!     logs/<job / 1000>/<job>/log           log.zst once it is packed
//!     logs/<job / 1000>/<job>/tasks/<task>/log
//!     artifacts/<job / 1000>/<job>/<index>
//!     incoming/                             uploads that have not ended
//! ```
//!
//! What a crash left of a log beyond the last acknowledged byte counts as stored once it is
//! fsynced, when the log is next looked at. A packed log ([`crate::frames`]) takes the place of
//! the log when nothing is added any more; where both are there, the log counts. An artifact comes into `incoming/` and is renamed
//! when it is on disk.

mod artifact;
mod disk;
mod files;
mod log;
mod pack;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use kiln_core::farm::{JobId, LeaseKey, LogName};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncSeekExt},
    sync::watch,
};

pub(crate) use disk::blocking;

use crate::{
    AppendError, Found, Index, PutError, Reader, is_name, no_name, table::Table, upkeep::of_job,
};

#[derive(Debug)]
pub(crate) struct Directory {
    dir: PathBuf,
    index: Arc<dyn Index>,
    logs: Table<log::Log>,
    /// Names in `incoming/`.
    next: AtomicU64,
}

impl Directory {
    pub(crate) async fn open(dir: &Path, index: Arc<dyn Index>) -> io::Result<Self> {
        let dir = dir.to_owned();
        disk::blocking(move || {
            disk::prepare(&dir).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", dir.display()))
            })?;
            Ok(Self::of(dir, index))
        })
        .await
    }

    /// One that is there, as it is.
    pub(crate) fn look(dir: &Path, index: Arc<dyn Index>) -> io::Result<Self> {
        let found = std::fs::read_dir(dir);
        found
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", dir.display())))?;
        Ok(Self::of(dir.to_owned(), index))
    }

    fn of(dir: PathBuf, index: Arc<dyn Index>) -> Self {
        Self {
            dir,
            index,
            logs: Table::default(),
            next: AtomicU64::new(0),
        }
    }

    pub(crate) async fn check(&self) -> io::Result<()> {
        let probe = self.incoming();
        disk::blocking(move || {
            std::fs::write(&probe, b"kiln")?;
            std::fs::remove_file(&probe)
        })
        .await
    }

    /// The lease is looked at under the log's lock: whoever ended it writes after this.
    pub(crate) async fn append(
        &self,
        lease: LeaseKey<'_>,
        log: &LogName,
        offset: u64,
        bytes: Bytes,
    ) -> Result<u64, AppendError> {
        let locked = self.held(lease, log).await?;
        if locked.stored() == 0 {
            return Err(AppendError::NotBegun);
        }
        locked.append(offset, bytes).await
    }

    pub(crate) async fn begin(
        &self,
        lease: LeaseKey<'_>,
        log: &LogName,
        text: String,
    ) -> Result<u64, AppendError> {
        let locked = self.held(lease, log).await?;
        match locked.stored() {
            0 => Ok(locked.append_text(text).await?),
            stored => Ok(stored),
        }
    }

    /// A log for who has a lease of its job.
    async fn held(
        &self,
        lease: LeaseKey<'_>,
        log: &LogName,
    ) -> Result<log::LockedLog, AppendError> {
        let locked = self.entry(log)?.lock().await?;
        match self.index.holds(lease).await? == log.job() {
            true => Ok(locked),
            false => Err(AppendError::LeaseLost),
        }
    }

    pub(crate) async fn add_text(&self, log: &LogName, text: String) -> io::Result<()> {
        let locked = self.entry(log)?.lock().await?;
        locked.append_text(text).await?;
        Ok(())
    }

    /// Adds text to a log that has begun.
    pub(crate) async fn end(&self, log: &LogName, text: String) -> io::Result<()> {
        let locked = self.entry(log)?.lock().await?;
        if locked.stored() > 0 {
            locked.append_text(text).await?;
        }
        Ok(())
    }

    pub(crate) async fn stored(&self, log: &LogName) -> io::Result<u64> {
        let entry = self.entry(log)?;
        match entry.known() {
            Some(stored) => Ok(stored),
            None => Ok(entry.lock().await?.stored()),
        }
    }

    pub(crate) async fn read(&self, log: &LogName, from: u64, to: u64) -> io::Result<Reader> {
        let end = to.min(self.stored(log).await?);
        if from >= end {
            return Ok(Box::new(tokio::io::empty()));
        }
        self.entry(log)?.read(from, end).await
    }

    pub(crate) async fn seek_line(&self, log: &LogName, line: u64) -> io::Result<(u64, u64)> {
        self.stored(log).await?;
        Ok(self.entry(log)?.seek_line(line))
    }

    pub(crate) async fn pack(&self, log: &LogName) -> io::Result<u64> {
        let locked = self.entry(log)?.lock().await?;
        locked.pack(self.incoming()).await
    }

    pub(crate) fn log_files(&self, log: &LogName) -> io::Result<Vec<String>> {
        self.log_path(log)?;
        let job = of_job(disk::LOGS, log.job());
        let file = match log {
            LogName::Job(_) => format!("{job}log"),
            LogName::Task(_, task) => format!("{job}tasks/{task}/log"),
        };
        let packed = format!("{file}.zst");
        Ok(vec![file, packed])
    }

    pub(crate) async fn shards(&self) -> io::Result<BTreeSet<i32>> {
        let root = self.dir.clone();
        disk::blocking(move || files::shards(&root)).await
    }

    pub(crate) async fn list(&self, shard: i32) -> io::Result<Vec<Found>> {
        let root = self.dir.clone();
        disk::blocking(move || files::list(&root, shard)).await
    }

    pub(crate) async fn remove(&self, key: &str) -> io::Result<()> {
        let (root, key) = (self.dir.clone(), key.to_owned());
        disk::blocking(move || files::remove(&root, &key)).await
    }

    pub(crate) async fn mark(&self, farm: &str) -> io::Result<String> {
        let (root, farm) = (self.dir.clone(), farm.to_owned());
        disk::blocking(move || files::mark(&root, &farm)).await
    }

    pub(crate) fn watch(&self, log: &LogName) -> watch::Receiver<u64> {
        match self.entry(log) {
            Ok(entry) => entry.watch(),
            // Of a log that can't be, nothing is ever told.
            Err(_) => watch::channel(0).1,
        }
    }

    pub(crate) async fn put_artifact(
        &self,
        job: JobId,
        index: u32,
        body: &mut (dyn AsyncRead + Send + Unpin),
        size: u64,
        sha256: &str,
    ) -> Result<(), PutError> {
        let incoming = artifact::Incoming::take(self.incoming(), body, size, sha256).await?;
        let dir = self.dir.clone();
        let path = self.artifact_path(job, index);
        disk::blocking(move || incoming.put(&dir, &path)).await?;
        Ok(())
    }

    pub(crate) async fn artifact(
        &self,
        job: JobId,
        index: u32,
        from: u64,
        to: u64,
    ) -> io::Result<Reader> {
        part(File::open(self.artifact_path(job, index)).await?, from, to).await
    }

    fn entry(&self, name: &LogName) -> io::Result<Arc<log::Log>> {
        let path = self.log_path(name)?;
        let make = || log::Log::new(self.dir.clone(), path);
        Ok(self.logs.get(name, make))
    }

    fn log_path(&self, name: &LogName) -> io::Result<PathBuf> {
        let logs = self.dir.join(disk::LOGS);
        match name {
            LogName::Job(job) => Ok(disk::of_job(&logs, *job).join("log")),
            LogName::Task(job, task) if is_name(task) => {
                let tasks = disk::of_job(&logs, *job).join("tasks");
                Ok(tasks.join(task).join("log"))
            }
            LogName::Task(..) => Err(no_name()),
        }
    }

    fn artifact_path(&self, job: JobId, index: u32) -> PathBuf {
        let artifacts = self.dir.join(disk::ARTIFACTS);
        disk::of_job(&artifacts, job).join(index.to_string())
    }

    fn incoming(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let incoming = self.dir.join(disk::INCOMING);
        incoming.join(number.to_string())
    }
}

/// Bytes [from, to) of a file.
async fn part(mut file: File, from: u64, to: u64) -> io::Result<Reader> {
    file.seek(io::SeekFrom::Start(from)).await?;
    Ok(Box::new(file.take(to.saturating_sub(from))))
}
