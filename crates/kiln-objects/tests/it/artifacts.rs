use std::{io, pin::Pin, task};

use kiln_objects::{Objects, PutError};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, ReadBuf};

use crate::place::{JOB, Place, bytes};

/// `printf hello | sha256sum`
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

async fn put(objects: &Objects, mut body: &[u8], size: u64, sha256: &str) -> Result<(), PutError> {
    let body = &mut body;
    objects.put_artifact(JOB, 0, body, size, sha256).await
}

async fn whole(objects: &Objects) -> io::Result<Vec<u8>> {
    Ok(bytes(objects.artifact(JOB, 0, 0, u64::MAX).await?).await)
}

/// Uploads that have not ended go, whosever they were.
async fn nothing_comes_in(place: &Place) {
    let gone = async {
        while place.count("incoming") > 0 || parts(place) > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let gone = tokio::time::timeout(std::time::Duration::from_secs(60), gone).await;
    gone.expect("uploads that failed go");
}

/// Files of uploads in parts, which s3s-fs keeps beside its buckets.
fn parts(place: &Place) -> usize {
    let root = place.files.ancestors().nth(2).unwrap();
    let names = std::fs::read_dir(root).unwrap();
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(".upload")).count()
}

/// A connection that breaks off, after so many bytes.
struct Breaks(usize);

impl AsyncRead for Breaks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> task::Poll<io::Result<()>> {
        if self.0 == 0 {
            return task::Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let some = self.0.min(buffer.remaining());
        buffer.put_slice(&vec![b'x'; some]);
        self.0 -= some;
        task::Poll::Ready(Ok(()))
    }
}

pub async fn an_artifact_is_there_when_all_of_it_came(place: &Place) {
    let objects = place.open().await;
    for _ in 0..2 {
        put(&objects, b"hello", 5, HELLO).await.unwrap();
    }
    assert_eq!(whole(&objects).await.unwrap(), b"hello");
    assert_eq!(whole(&place.open().await).await.unwrap(), b"hello");
    assert_eq!(place.count("incoming"), 0);
}

pub async fn one_that_is_not_what_was_announced_leaves_nothing(place: &Place) {
    let objects = place.open().await;
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
    let mut breaks = Breaks(3);
    let broken = objects.put_artifact(JOB, 0, &mut breaks, 5, HELLO).await;
    assert!(matches!(broken, Err(PutError::Broken(_))), "{broken:?}");
    let none = whole(&objects).await.unwrap_err();
    assert_eq!(
        (none.kind(), place.count("artifacts")),
        (io::ErrorKind::NotFound, 0)
    );
    assert_eq!(place.count("incoming"), 0);
}

pub async fn one_that_replaces_another_and_fails_leaves_the_other(place: &Place) {
    let objects = place.open().await;
    put(&objects, b"hello", 5, HELLO).await.unwrap();
    put(&objects, b"other", 5, HELLO).await.unwrap_err();
    assert_eq!(whole(&objects).await.unwrap(), b"hello");
}

pub async fn a_part_of_one_is_read(place: &Place) {
    let objects = place.open().await;
    put(&objects, b"hello", 5, HELLO).await.unwrap();
    for (from, to, part) in [(1, 3, &b"el"[..]), (4, 9, b"o"), (2, 2, b""), (5, 9, b"")] {
        let reader = objects.artifact(JOB, 0, from, to).await.unwrap();
        assert_eq!(bytes(reader).await, part, "{from}-{to}");
    }
}

pub async fn one_that_comes_in_parts_is_whole_or_not_there(place: &Place) {
    let objects = place.open().await;
    let body: Vec<u8> = (0u32..3 << 20).flat_map(u32::to_be_bytes).collect();
    let digest: String = Sha256::digest(&body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let size = body.len() as u64;
    for (size, digest) in [(size, HELLO), (size + 1, &*digest), (size - 1, &*digest)] {
        let refused = put(&objects, &body, size, digest).await;
        assert!(
            matches!(refused, Err(PutError::Different(_))),
            "{refused:?}"
        );
    }
    let broken = objects
        .put_artifact(JOB, 0, &mut Breaks(11 << 20), size, &digest)
        .await;
    assert!(matches!(broken, Err(PutError::Broken(_))), "{broken:?}");
    assert_eq!(
        whole(&objects).await.unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    nothing_comes_in(place).await;
    put(&objects, &body, size, &digest).await.unwrap();
    assert!(whole(&objects).await.unwrap() == body);
    let part = objects.artifact(JOB, 0, 9 << 20, size).await.unwrap();
    assert!(bytes(part).await == body[9 << 20..]);
    nothing_comes_in(place).await;
}

pub async fn an_empty_one_is_one(place: &Place) {
    let objects = place.open().await;
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    put(&objects, b"", 0, nothing).await.unwrap();
    assert_eq!(whole(&objects).await.unwrap(), b"");
}

pub async fn the_place_can_be_written(place: &Place) {
    place.open().await.check().await.unwrap();
    assert_eq!(place.count("incoming"), 0);
}
