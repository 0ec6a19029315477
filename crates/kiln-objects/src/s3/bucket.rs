//! A bucket: objects by key, below the farm's prefix.

use std::{
    io,
    ops::Range,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::{
    GetOptions, GetRange, MultipartUpload, ObjectStore as _, ObjectStoreExt as _, path::Path,
};
use tokio_util::io::StreamReader;

use super::{
    config::{S3Config, Stores, wrong},
    fault, key,
};
use crate::{Found, Reader};

/// How long a look takes at the most whether one can write.
const CHECK: Duration = Duration::from_secs(5);
/// How long what was written to see whether one can is looked for instead of being written
/// again: a bucket that keeps versions keeps each of them.
const WRITTEN: Duration = Duration::from_mins(1);

pub(super) struct Bucket {
    stores: Stores,
    prefix: Path,
    /// What it is, for people.
    name: String,
    access_key: String,
    /// When it was seen last that one can write.
    written: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Bucket").field(&self.name).finish()
    }
}

impl Bucket {
    pub(super) fn connect(config: &S3Config) -> io::Result<Self> {
        let prefix = Path::parse(&config.prefix)
            .map_err(|error| wrong(format!("`{}` is no prefix: {error}", config.prefix)))?;
        Ok(Self {
            stores: config.stores()?,
            prefix,
            name: format!("the bucket `{}` at {}", config.bucket, config.place()),
            access_key: config.access_key.clone(),
            written: Mutex::default(),
        })
    }

    fn path(&self, key: &str) -> io::Result<Path> {
        let whole = match self.prefix.as_ref() {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        };
        Path::parse(whole).map_err(|error| wrong(error.to_string()))
    }

    /// Lists next to nothing, without trying again: not every store misses the bucket when
    /// something is put into it.
    pub(super) async fn look(&self) -> io::Result<()> {
        let path = self.path(key::READY)?;
        self.told(self.stores.once.list_with_delimiter(Some(&path)))
            .await
    }

    /// Writes, at most once a minute as long as that goes, and looks for what was written
    /// between. Nothing is tried again: what is told is how it is now.
    pub(super) async fn check(&self) -> io::Result<()> {
        let path = self.path(key::READY)?;
        let written = || self.written.lock().unwrap_or_else(PoisonError::into_inner);
        // Until it is seen again.
        let before = written().take().filter(|at| at.elapsed() < WRITTEN);
        let at = match before {
            Some(at) => {
                self.told(self.stores.once.head(&path)).await?;
                at
            }
            None => {
                let put = self.stores.once.put(&path, "kiln\n".into());
                self.told(put).await?;
                Instant::now()
            }
        };
        *written() = Some(at);
        Ok(())
    }

    /// Waits for an answer for a while; a sentence when that is no good one.
    async fn told<T>(
        &self,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> io::Result<()> {
        let name = &self.name;
        let error = match tokio::time::timeout(CHECK, request).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => {
                let text = format!("{name} gives no answer in {} s", CHECK.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
        };
        let cause = fault::cause(&error);
        let fault = fault::of(&error);
        let (kind, text) = match fault.kind() {
            _ if cause.contains("NoSuchBucket") || fault.kind() == io::ErrorKind::NotFound => (
                io::ErrorKind::NotFound,
                format!("{name} is not there ({cause}); make it, or name another in `objects`"),
            ),
            // Of a refused listing nothing else is told but what was answered.
            kind if kind == io::ErrorKind::PermissionDenied
                || cause.contains("403 Forbidden")
                || cause.contains("401 Unauthorized") =>
            {
                let key = &self.access_key;
                (
                    io::ErrorKind::PermissionDenied,
                    format!(
                        "{name} refuses the key {key} ({cause}); see s3-access-key and s3-secret-key"
                    ),
                )
            }
            kind => (kind, format!("{name} can't be used: {cause}")),
        };
        Err(io::Error::new(kind, text))
    }

    pub(super) async fn put(&self, key: &str, bytes: Bytes) -> io::Result<()> {
        let path = self.path(key)?;
        let put = self.stores.lasting.put(&path, bytes.into()).await;
        put.map(drop).map_err(|error| fault::of(&error))
    }

    /// A part of an object, which has all of it.
    pub(super) async fn get(&self, key: &str, range: Range<u64>) -> io::Result<Bytes> {
        let path = self.path(key)?;
        let wanted = range.end - range.start;
        let bytes = self.stores.lasting.get_range(&path, range).await;
        let bytes = bytes.map_err(|error| fault::of(&error))?;
        match bytes.len() as u64 == wanted {
            true => Ok(bytes),
            false => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the object {key} is too short"),
            )),
        }
    }

    pub(super) async fn delete(&self, key: &str) -> io::Result<()> {
        let path = self.path(key)?;
        let deleted = self.stores.lasting.delete(&path).await;
        deleted.map_err(|error| fault::of(&error))
    }

    /// Bytes [from, to) of an object as they come; fewer when there are fewer.
    pub(super) async fn stream(&self, key: &str, from: u64, to: u64) -> io::Result<Reader> {
        let path = self.path(key)?;
        let found = self.stores.lasting.head(&path).await;
        let size = found.map_err(|error| fault::of(&error))?.size;
        let to = to.min(size);
        if from >= to {
            return Ok(Box::new(tokio::io::empty()));
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(from..to)),
            ..GetOptions::default()
        };
        let got = self.stores.lasting.get_opts(&path, options).await;
        let stream = got.map_err(|error| fault::of(&error))?.into_stream();
        let stream = stream.map_err(|error| fault::of(&error));
        Ok(Box::new(StreamReader::new(stream)))
    }

    /// Removes an object; one that is gone is gone.
    pub(super) async fn remove(&self, key: &str) -> io::Result<()> {
        match self.delete(key).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// All of a small text, if it is there.
    pub(super) async fn whole(&self, key: &str) -> io::Result<Option<String>> {
        let path = self.path(key)?;
        let found = async { self.stores.lasting.get(&path).await?.bytes().await };
        match found.await.map_err(|error| fault::of(&error)) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects below a key.
    pub(super) async fn list(&self, below: &str) -> io::Result<Vec<Found>> {
        let path = self.path(below)?;
        let found = self.stores.lasting.list(Some(&path));
        let found = found.map_ok(|about| Found {
            key: self.key(&about.location),
            size: about.size,
            modified: about.last_modified.into(),
        });
        let found = found.try_collect().await;
        found.map_err(|error| fault::of(&error))
    }

    /// The names of what is directly below a key and has something below itself.
    pub(super) async fn below(&self, key: &str) -> io::Result<Vec<String>> {
        let path = self.path(key)?;
        let listed = self.stores.lasting.list_with_delimiter(Some(&path)).await;
        let listed = listed.map_err(|error| fault::of(&error))?;
        let names = listed.common_prefixes.iter();
        Ok(names
            .filter_map(|path| path.filename().map(str::to_owned))
            .collect())
    }

    /// A path without the farm's prefix.
    fn key(&self, path: &Path) -> String {
        let parts = path.prefix_match(&self.prefix);
        parts.map_or_else(|| path.to_string(), |parts| Path::from_iter(parts).into())
    }

    /// Begins an object that comes in parts, and is not there before all of them are.
    pub(super) async fn begin(&self, key: &str) -> io::Result<Box<dyn MultipartUpload>> {
        let path = self.path(key)?;
        let begun = self.stores.lasting.put_multipart(&path).await;
        begun.map_err(|error| fault::of(&error))
    }
}
