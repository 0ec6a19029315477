//! Where logs and artifacts are, for tests.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use kiln_core::farm::{Fence, JobId, LeaseKey, SessionId, WorkerId};
use kiln_objects::{
    AppendError, Config, LogName, Objects, S3Config,
    testing::{MemoryIndex, S3},
};
use tokio::io::AsyncReadExt;

pub const JOB: JobId = JobId(1234);
pub const FENCE: Fence = Fence(7);

/// The first line that tests write; what follows begins behind it.
pub const FIRST: &str = "first";
pub const START: u64 = 6;

/// One for all tests of this process; it ends with it.
static SERVER: LazyLock<S3> = LazyLock::new(|| S3::start().expect("s3s-fs starts"));

pub fn log() -> LogName {
    LogName::Job(JOB)
}

pub fn task(name: &str) -> LogName {
    LogName::Task(JOB, name.to_owned())
}

/// Where logs and artifacts are.
pub struct Place {
    pub index: Arc<MemoryIndex>,
    pub config: Config,
    /// Where the files are of what is in it.
    pub files: PathBuf,
    /// A session's name.
    session: SessionId,
    _dir: Option<tempfile::TempDir>,
}

impl Place {
    pub async fn directory() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().to_owned();
        Self::of(Config::Directory(files.clone()), files, Some(dir))
    }

    pub async fn s3() -> Self {
        let server = tokio::task::spawn_blocking(|| &*SERVER).await.unwrap();
        Self::in_bucket(server, |config| config)
    }

    /// In a new bucket of this server.
    pub fn in_bucket(server: &S3, change: impl FnOnce(S3Config) -> S3Config) -> Self {
        let config = server.bucket().unwrap();
        let files = server.directory(&config);
        Self::of(Config::S3(change(config)), files, None)
    }

    fn of(config: Config, files: PathBuf, dir: Option<tempfile::TempDir>) -> Self {
        Self {
            index: Arc::new(MemoryIndex::new(JOB)),
            config,
            files,
            session: SessionId::new([1; 16]),
            _dir: dir,
        }
    }

    pub fn s3_config(&self) -> &S3Config {
        match &self.config {
            Config::S3(config) => config,
            Config::Directory(_) => panic!("this is a directory"),
        }
    }

    /// As a server that starts does, beside others in an object store.
    pub async fn open(&self) -> Objects {
        let opened = Objects::at(self.config.clone(), self.index.clone()).await;
        opened.unwrap()
    }

    /// With a log that has its first line.
    pub async fn begun(&self) -> Objects {
        let objects = self.open().await;
        let begun = objects.begin(self.key(), &log(), FIRST).await;
        assert_eq!(begun.unwrap(), START);
        objects
    }

    /// Adds a line of the farm's, as one of its transactions does. Gives where the log ends
    /// then.
    pub async fn line(&self, objects: &Objects, log: &LogName, line: &str) -> u64 {
        let lines = [line.to_owned()];
        let left = objects.lines_before_commit(log, &lines).await.unwrap();
        match left {
            Some(text) => self.index.add_text(log, &text),
            None => objects.stored(log).await.unwrap(),
        }
    }

    pub fn key(&self) -> LeaseKey<'_> {
        LeaseKey {
            worker: WorkerId(1),
            session: &self.session,
            fence: FENCE,
        }
    }

    pub async fn append(
        &self,
        objects: &Objects,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, AppendError> {
        let bytes = Bytes::copy_from_slice(bytes);
        objects.append(self.key(), &log(), offset, bytes).await
    }

    /// How many files there are below a part of it.
    pub fn count(&self, part: &str) -> usize {
        fn count(dir: &std::path::Path) -> usize {
            let Ok(entries) = std::fs::read_dir(dir) else {
                return 0;
            };
            entries
                .map(|entry| entry.unwrap().path())
                .map(|path| match path.is_dir() {
                    true => count(&path),
                    // s3s-fs has files of its own beside those of objects.
                    false => {
                        usize::from(!path.file_name().unwrap().to_str().unwrap().starts_with('.'))
                    }
                })
                .sum()
        }
        count(&self.files.join(part))
    }
}

pub async fn bytes(mut reader: kiln_objects::Reader) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await.unwrap();
    bytes
}

pub async fn read(objects: &Objects, log: &LogName) -> Vec<u8> {
    bytes(objects.read(log, 0, u64::MAX).await.unwrap()).await
}

/// Where a log ends by an append that was refused for its offset.
#[track_caller]
pub fn ends_at(refused: Result<u64, AppendError>) -> u64 {
    match refused {
        Err(AppendError::Offset { stored }) => stored,
        other => panic!("it was not refused for its offset: {other:?}"),
    }
}
