//! An artifact on its way into the bucket: at once when it is small, else in parts, of which
//! the last is not confirmed before the whole is what was said.

use std::io;

use object_store::MultipartUpload;
use tokio::io::AsyncRead;

use super::{bucket::Bucket, fault, index};
use crate::{PutError, counted::Counted};

/// The least that a part may have, in S3.
const PART: u64 = 5 << 20;
/// So many parts an object may have at the most, in S3.
const PARTS: u64 = 10_000;

/// How much of one of this size is in memory at once.
pub(super) fn room(size: u64) -> usize {
    index(size.min(part(size)))
}

fn part(size: u64) -> u64 {
    PART.max(size.div_ceil(PARTS))
}

pub(super) async fn put(
    bucket: &Bucket,
    key: &str,
    body: &mut (dyn AsyncRead + Send + Unpin),
    size: u64,
    sha256: &str,
) -> Result<(), PutError> {
    let part = part(size);
    let mut counted = Counted::new(body, size);
    if size <= part {
        // One byte more would tell that it is too long.
        let bytes = counted.next(index(size) + 1).await?;
        counted.whole(sha256)?;
        return Ok(bucket.put(key, bytes.freeze()).await?);
    }
    let mut upload = Upload::begin(bucket, key).await?;
    loop {
        let bytes = counted.next(index(part)).await?;
        if bytes.is_empty() {
            break;
        }
        upload.part(bytes.freeze()).await?;
    }
    counted.whole(sha256)?;
    Ok(upload.complete().await?)
}

/// An object that is not there yet. Dropped, what came of it goes.
pub(super) struct Upload(Option<Box<dyn MultipartUpload>>);

impl Upload {
    pub(super) async fn begin(bucket: &Bucket, key: &str) -> io::Result<Self> {
        Ok(Self(Some(bucket.begin(key).await?)))
    }

    pub(super) async fn part(&mut self, bytes: bytes::Bytes) -> io::Result<()> {
        let Some(upload) = &mut self.0 else {
            return Ok(());
        };
        let put = upload.put_part(bytes.into()).await;
        put.map_err(|error| fault::of(&error))
    }

    pub(super) async fn complete(mut self) -> io::Result<()> {
        let Some(upload) = &mut self.0 else {
            return Ok(());
        };
        let completed = upload.complete().await;
        completed.map_err(|error| fault::of(&error))?;
        self.0 = None;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let (Some(mut upload), Ok(runtime)) =
            (self.0.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        runtime.spawn(async move {
            if let Err(error) = upload.abort().await {
                tracing::debug!("parts of an object stay: {}", fault::cause(&error));
            }
        });
    }
}
