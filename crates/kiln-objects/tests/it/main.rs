//! Logs and artifacts in a directory.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod artifacts;
mod frames;
mod logs;
mod packed;

use kiln_core::farm::JobId;
use kiln_objects::{LogName, Objects};
use tokio::io::AsyncReadExt;

const JOB: JobId = JobId(1234);

fn log() -> LogName {
    LogName::Job(JOB)
}

async fn open(dir: &tempfile::TempDir) -> Objects {
    Objects::open(dir.path()).await.unwrap()
}

async fn read(objects: &Objects, log: &LogName) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reader = objects.read(log, 0, u64::MAX).await.unwrap();
    reader.read_to_end(&mut bytes).await.unwrap();
    bytes
}
