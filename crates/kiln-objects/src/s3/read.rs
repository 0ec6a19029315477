//! Reading a log: its pieces in order, the next ones fetched while one is used.

use std::{collections::VecDeque, io, sync::Arc};

use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _, future::BoxFuture, stream, stream::FuturesOrdered,
};
use kiln_core::farm::LogName;
use tokio_util::io::StreamReader;

use super::{Inner, index};
use crate::{Held, Piece, Reader};

/// Rows that are read at once.
const ROWS: u32 = 64;
/// The most that one request asks for, in bytes.
const PART: u64 = 256 << 10;
/// So much is fetched ahead: bytes, and requests.
const AHEAD: u64 = 1 << 20;
const REQUESTS: usize = 16;

/// Some bytes of a piece.
struct Part {
    held: Held,
    /// Within the piece.
    from: u64,
    to: u64,
}

/// The bytes of a log, from one to another.
pub(super) struct Pieces {
    inner: Arc<Inner>,
    log: LogName,
    /// What is listed ends here.
    listed_to: u64,
    end: u64,
    listed: VecDeque<Part>,
    coming: FuturesOrdered<BoxFuture<'static, io::Result<Bytes>>>,
    /// Bytes of what is coming.
    ahead: u64,
}

impl Pieces {
    pub(super) fn new(inner: &Arc<Inner>, log: &LogName, from: u64, end: u64) -> Self {
        Self {
            inner: Arc::clone(inner),
            log: log.clone(),
            listed_to: from,
            end,
            listed: VecDeque::new(),
            coming: FuturesOrdered::new(),
            ahead: 0,
        }
    }

    pub(super) fn reader(self) -> Reader {
        let stream = stream::try_unfold(self, async |mut pieces| {
            Ok::<_, io::Error>(pieces.next().await?.map(|bytes| (bytes, pieces)))
        });
        Box::new(StreamReader::new(Box::pin(stream)))
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.coming.len() < REQUESTS && self.ahead < AHEAD {
            match self.listed.pop_front() {
                Some(part) => self.fetch(part),
                None if self.listed_to < self.end => self.list().await?,
                None => break,
            }
        }
        let Some(bytes) = self.coming.next().await.transpose()? else {
            return Ok(None);
        };
        self.ahead -= bytes.len() as u64;
        Ok(Some(bytes))
    }

    fn fetch(&mut self, part: Part) {
        self.ahead += part.to - part.from;
        let Part { held, from, to } = part;
        self.coming.push_back(match held {
            Held::Text(text) => {
                let bytes = text.slice(index(from)..index(to));
                std::future::ready(Ok(bytes)).boxed()
            }
            Held::Object { key, .. } => {
                let inner = Arc::clone(&self.inner);
                async move { inner.bucket.get(&key, from..to).await }.boxed()
            }
        });
    }

    /// Lists the next pieces.
    async fn list(&mut self) -> io::Result<()> {
        let before = self.listed_to;
        let pieces = self.inner.index.pieces(&self.log, before, ROWS).await?;
        for piece in pieces {
            self.cut(&piece)?;
        }
        match self.listed_to > before {
            true => Ok(()),
            false => Err(self.hole()),
        }
    }

    fn cut(&mut self, piece: &Piece) -> io::Result<()> {
        if piece.start > self.listed_to {
            return Err(self.hole());
        }
        let to = piece.end().min(self.end);
        while self.listed_to < to {
            let next = to.min(self.listed_to + PART);
            self.listed.push_back(Part {
                held: piece.held.clone(),
                from: self.listed_to - piece.start,
                to: next - piece.start,
            });
            self.listed_to = next;
        }
        Ok(())
    }

    fn hole(&self) -> io::Error {
        let text = format!("a log has nothing at byte {}", self.listed_to);
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}
