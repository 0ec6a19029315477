//! Packed logs in a bucket, and what is there at all.

use std::{collections::BTreeSet, io, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use kiln_core::farm::LogName;
use tokio::io::AsyncReadExt as _;

use super::{Inner, S3, artifact::Upload, key, read::Pieces};
use crate::{
    Found, Held, IndexError, PackedLog, Piece, Reader,
    directory::blocking,
    frames::Writer,
    packed::{Packed, ReadAt},
};

/// Rows that are read at once.
const ROWS: u32 = 64;
/// The most of a piece that is read at once.
const READ: u64 = 1 << 20;
/// A packed log goes into the bucket in parts of at least so much, as S3 wants.
const PART: usize = 8 << 20;
/// What is compared at once.
const COMPARED: usize = 64 << 10;

/// An object's bytes.
#[derive(Debug)]
struct Object {
    inner: Arc<Inner>,
    key: String,
}

#[async_trait]
impl ReadAt for Object {
    async fn read_at(&self, from: u64, to: u64) -> io::Result<Bytes> {
        self.inner.bucket.get(&self.key, from..to).await
    }
}

/// Opens a packed log.
pub(super) async fn open(inner: &Arc<Inner>, key: &str, length: u64) -> io::Result<Packed> {
    let object = Object {
        inner: Arc::clone(inner),
        key: key.to_owned(),
    };
    Packed::open(Arc::new(object), length).await
}

impl S3 {
    pub(crate) async fn seek_line(&self, log: &LogName, line: u64) -> io::Result<(u64, u64)> {
        key::of_log(log)?;
        let pieces = self.0.index.pieces(log, 0, 1).await?;
        match pieces.first().map(|piece| &piece.held) {
            Some(Held::Packed { key, length }) => {
                let packed = open(&self.0, key, *length).await?;
                Ok(packed.index.seek_line(line))
            }
            _ => Ok((0, 1)),
        }
    }

    /// Written, read again and compared before anybody reads it. One that does not come into
    /// use is removed; what a crash leaves is nobody's.
    pub(crate) async fn pack(&self, log: &LogName) -> io::Result<u64> {
        let stored = self.stored(log).await?;
        let kept = self.kept(log).await?;
        if let Kept::AsItIs(bytes) = kept {
            return Ok(bytes);
        }
        let key = key::of_packed(log)?;
        let written = self.write(log, stored, &key).await;
        let packed = match written {
            Ok(length) => PackedLog {
                stored,
                key,
                length,
            },
            Err(error) => {
                self.discard(&key).await;
                return Err(error);
            }
        };
        match self.0.index.pack(log, &packed).await {
            Ok(()) => Ok(packed.length),
            Err(IndexError::Offset { .. }) => {
                self.discard(&packed.key).await;
                match self.kept(log).await? {
                    Kept::AsItIs(bytes) => Ok(bytes),
                    Kept::InPieces => Err(io::Error::other("a log has grown while it was packed")),
                }
            }
            // It may be in use: it stays.
            Err(error) => Err(error.into()),
        }
    }

    async fn discard(&self, key: &str) {
        if let Err(error) = self.0.bucket.delete(key).await {
            tracing::debug!(key, "an object that is no packed log stays: {error}");
        }
    }

    /// How a log is kept.
    async fn kept(&self, log: &LogName) -> io::Result<Kept> {
        let mut at = 0;
        loop {
            let pieces = self.0.index.pieces(log, at, ROWS).await?;
            let Some(last) = pieces.last() else {
                // Only lines in the database: they take no object.
                return Ok(Kept::AsItIs(at));
            };
            for piece in &pieces {
                match &piece.held {
                    Held::Packed { length, .. } => return Ok(Kept::AsItIs(*length)),
                    Held::Object { .. } => return Ok(Kept::InPieces),
                    Held::Text(_) => {}
                }
            }
            at = last.end();
        }
    }

    /// Writes the packed log as an object, and makes sure of it. Gives its length.
    async fn write(&self, log: &LogName, stored: u64, key: &str) -> io::Result<u64> {
        let mut writer = Writer::new(Vec::new())?;
        let mut upload = None;
        let mut at = 0;
        while at < stored {
            let pieces = self.0.index.pieces(log, at, ROWS).await?;
            if pieces.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            for piece in pieces {
                at = piece.end();
                let mut from = 0;
                while from < piece.length {
                    let to = piece.length.min(from + READ);
                    let text = self.text(&piece, from, to).await?;
                    let time = piece.time;
                    writer = blocking(move || {
                        writer.push(&text, time)?;
                        Ok::<_, io::Error>(writer)
                    })
                    .await?;
                    self.upload(&mut upload, key, writer.out(), PART).await?;
                    from = to;
                }
            }
        }
        let (mut rest, summary) = writer.finish()?;
        match upload {
            None => self.0.bucket.put(key, rest.into()).await?,
            Some(_) => {
                self.upload(&mut upload, key, &mut rest, 1).await?;
                if let Some(upload) = upload {
                    upload.complete().await?;
                }
            }
        }
        let packed = open(&self.0, key, summary.file).await?;
        let pieces = Pieces::new(&self.0, log, 0, stored).reader();
        compare(packed.read(0, u64::MAX), pieces).await?;
        Ok(summary.file)
    }

    async fn text(&self, piece: &Piece, from: u64, to: u64) -> io::Result<Bytes> {
        match &piece.held {
            Held::Text(text) => Ok(text.slice(super::index(from)..super::index(to))),
            Held::Object { key, .. } => self.0.bucket.get(key, from..to).await,
            Held::Packed { .. } => Err(io::Error::other("the log was packed meanwhile")),
        }
    }

    /// Sends what was written, once it is so much.
    async fn upload(
        &self,
        upload: &mut Option<Upload>,
        key: &str,
        written: &mut Vec<u8>,
        least: usize,
    ) -> io::Result<()> {
        if written.len() < least {
            return Ok(());
        }
        let part = std::mem::take(written);
        let upload = match upload {
            Some(upload) => upload,
            None => upload.insert(Upload::begin(&self.0.bucket, key).await?),
        };
        upload.part(part.into()).await
    }

    pub(crate) async fn shards(&self) -> io::Result<BTreeSet<i32>> {
        let mut shards = BTreeSet::new();
        for kind in ["logs", "artifacts"] {
            let names = self.0.bucket.below(kind).await?;
            shards.extend(names.iter().filter_map(|name| name.parse::<i32>().ok()));
        }
        Ok(shards)
    }

    pub(crate) async fn list(&self, shard: i32) -> io::Result<Vec<Found>> {
        let mut found = self.0.bucket.list(&format!("logs/{shard}")).await?;
        found.extend(self.0.bucket.list(&format!("artifacts/{shard}")).await?);
        Ok(found)
    }

    pub(crate) async fn remove(&self, key: &str) -> io::Result<()> {
        let Some(all) = key.strip_suffix('/') else {
            return self.0.bucket.remove(key).await;
        };
        for found in self.0.bucket.list(all).await? {
            self.0.bucket.remove(&found.key).await?;
        }
        Ok(())
    }

    pub(crate) async fn mark(&self, farm: &str) -> io::Result<String> {
        const MARK: &str = "farm";
        if let Some(found) = self.0.bucket.whole(MARK).await? {
            return Ok(found);
        }
        let bytes = Bytes::copy_from_slice(farm.as_bytes());
        self.0.bucket.put(MARK, bytes).await?;
        // Another one may have written it meanwhile.
        let found = self.0.bucket.whole(MARK).await?;
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// How a log is kept.
enum Kept {
    /// Packed, or so that packing it would be of no use; how many bytes it takes.
    AsItIs(u64),
    /// In objects that are pieces of it.
    InPieces,
}

/// Whether both have the same bytes.
async fn compare(mut one: Reader, mut other: Reader) -> io::Result<()> {
    let (mut left, mut right) = (vec![0; COMPARED], vec![0; COMPARED]);
    loop {
        let read = one.read(&mut left).await?;
        let same = match read {
            0 => other.read(&mut right).await? == 0,
            read => {
                other.read_exact(&mut right[..read]).await?;
                left[..read] == right[..read]
            }
        };
        if !same {
            return Err(io::Error::other("a packed log is not what it was made of"));
        }
        if read == 0 {
            return Ok(());
        }
    }
}
