//! Reading a packed log, wherever its bytes are: only the frames that are needed, and of these
//! few at once.

use std::{fmt, io, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use tokio_util::io::StreamReader;

use crate::{Reader, directory::blocking, frames::Index};

/// What is read of the end at first: the index of a log of some 500 MiB.
const END: u64 = 64 << 10;
/// Frames are fetched together while they have at most so many bytes.
const FETCHED: u64 = 256 << 10;

/// Bytes that never change.
#[async_trait]
pub(crate) trait ReadAt: fmt::Debug + Send + Sync {
    /// Bytes [from, to), which are there.
    async fn read_at(&self, from: u64, to: u64) -> io::Result<Bytes>;
}

/// A packed log.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    bytes: Arc<dyn ReadAt>,
    pub(crate) index: Arc<Index>,
    /// Its own bytes.
    pub(crate) length: u64,
}

impl Packed {
    /// Reads the index of a packed log that has so many bytes.
    pub(crate) async fn open(bytes: Arc<dyn ReadAt>, length: u64) -> io::Result<Self> {
        let mut end = bytes.read_at(length.saturating_sub(END), length).await?;
        let index = Index::length(&end)?;
        if index > length {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        if index > end.len() as u64 {
            end = bytes.read_at(length - index, length).await?;
        }
        let index = Arc::new(Index::read(&end, length)?);
        Ok(Self {
            bytes,
            index,
            length,
        })
    }

    /// Bytes [from, to) of the text; fewer where it ends before.
    pub(crate) fn read(&self, from: u64, to: u64) -> Reader {
        let walk = Walk {
            packed: self.clone(),
            at: from,
            to: to.min(self.index.text()),
            fetched: (0, Bytes::new()),
        };
        let pieces = stream::try_unfold(walk, async |mut walk| {
            Ok::<_, io::Error>(walk.next().await?.map(|bytes| (bytes, walk)))
        });
        Box::new(StreamReader::new(Box::pin(pieces)))
    }
}

/// Somebody who reads a packed log from one byte to another.
struct Walk {
    packed: Packed,
    at: u64,
    to: u64,
    /// Where in the file, and what of it.
    fetched: (u64, Bytes),
}

impl Walk {
    /// The text from `at` on that is in one frame; none at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let index = Arc::clone(&self.packed.index);
        let Some(frame) = index.frame_of(self.at).filter(|_| self.at < self.to) else {
            return Ok(None);
        };
        let bytes = self.fetch(frame).await?;
        let begin = index.frames()[frame].text;
        let text = blocking(move || Ok::<_, io::Error>(index.open(frame, &bytes)?)).await?;
        let end = (begin + text.len() as u64).min(self.to);
        let within = |at: u64| usize::try_from(at - begin).unwrap_or(usize::MAX);
        let part = within(self.at)..within(end);
        self.at = end;
        Ok(Some(Bytes::from(text).slice(part)))
    }

    /// A frame's bytes; with it the next ones are fetched that will be read and are small.
    async fn fetch(&mut self, frame: usize) -> io::Result<Bytes> {
        let index = &self.packed.index;
        let (from, to) = index.place(frame);
        let (begin, there) = &self.fetched;
        if from < *begin || to > begin + there.len() as u64 {
            let last = index.frame_of(self.to - 1).unwrap_or(frame);
            let ends = (frame..=last).map(|frame| index.place(frame).1);
            let end = ends.take_while(|end| end - from <= FETCHED).last();
            let end = end.unwrap_or(to);
            self.fetched = (from, self.packed.bytes.read_at(from, end).await?);
        }
        let (begin, there) = &self.fetched;
        let within = |at: u64| usize::try_from(at - begin).unwrap_or(usize::MAX);
        let part = within(from)..within(to);
        if part.end > there.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(there.slice(part))
    }
}

#[async_trait]
impl ReadAt for Arc<std::fs::File> {
    async fn read_at(&self, from: u64, to: u64) -> io::Result<Bytes> {
        use std::os::unix::fs::FileExt as _;

        let file = Arc::clone(self);
        blocking(move || {
            let length = usize::try_from(to - from).map_err(io::Error::other)?;
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, from)?;
            Ok(bytes.into())
        })
        .await
    }
}
