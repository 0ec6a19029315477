use std::{io, pin::Pin, task};

use kiln_objects::{Objects, PutError};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::{JOB, open};

/// `printf hello | sha256sum`
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn incoming(dir: &tempfile::TempDir) -> usize {
    let there = std::fs::read_dir(dir.path().join("incoming")).unwrap();
    there.count()
}

async fn put(objects: &Objects, mut body: &[u8], size: u64, sha256: &str) -> Result<(), PutError> {
    let body = &mut body;
    objects.put_artifact(JOB, 0, body, size, sha256).await
}

/// A connection that breaks off.
struct Breaks(bool);

impl AsyncRead for Breaks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> task::Poll<io::Result<()>> {
        if std::mem::replace(&mut self.0, true) {
            return task::Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        buffer.put_slice(b"hel");
        task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn an_artifact_is_there_when_all_of_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let objects = open(&dir).await;
    for _ in 0..2 {
        put(&objects, b"hello", 5, HELLO).await.unwrap();
    }
    let mut text = String::new();
    let mut file = objects.artifact(JOB, 0).await.unwrap();
    file.read_to_string(&mut text).await.unwrap();
    assert_eq!((text.as_str(), incoming(&dir)), ("hello", 0));
}

#[tokio::test]
async fn one_that_is_not_what_was_announced_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let objects = open(&dir).await;
    let other = "0".repeat(64);
    for (body, size, digest, says) in [
        (&b"hello"[..], 4, HELLO, "longer than the 4"),
        (b"hello", 6, HELLO, "has 5 bytes"),
        (b"hello", 5, other.as_str(), "SHA-256 is 2cf2"),
    ] {
        let error = put(&objects, body, size, digest).await.unwrap_err();
        assert!(matches!(error, PutError::Different(_)), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    }
    let mut breaks = Breaks(false);
    let broken = objects.put_artifact(JOB, 0, &mut breaks, 5, HELLO).await;
    assert!(matches!(broken, Err(PutError::Broken(_))), "{broken:?}");
    let none = objects.artifact(JOB, 0).await.unwrap_err();
    assert_eq!((none.kind(), incoming(&dir)), (io::ErrorKind::NotFound, 0));
}

#[tokio::test]
async fn one_that_replaces_another_and_fails_leaves_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let objects = open(&dir).await;
    put(&objects, b"hello", 5, HELLO).await.unwrap();
    put(&objects, b"other", 5, HELLO).await.unwrap_err();
    assert!(objects.artifact(JOB, 0).await.is_ok());
}

#[tokio::test]
async fn uploads_of_a_server_that_died_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    open(&dir).await;
    std::fs::write(dir.path().join("incoming/7"), b"half").unwrap();
    let objects = open(&dir).await;
    assert_eq!(incoming(&dir), 0);
    objects.check().await.unwrap();
    assert_eq!(incoming(&dir), 0);
}

#[tokio::test]
async fn a_directory_that_cannot_be_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = Objects::open(&file).await.unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()), "{error}");
}
