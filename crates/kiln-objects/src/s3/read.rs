//! Reading a log: its pieces in order, the next ones fetched while one is used.

use std::{collections::VecDeque, io, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::{
    FutureExt as _, StreamExt as _, future::BoxFuture, stream, stream::FuturesOrdered,
};
use kiln_core::farm::LogName;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::StreamReader;

use super::{Inner, index, pack};
use crate::{Held, Piece, Reader};

/// Rows that are read at once.
const ROWS: u32 = 64;
/// The most that one request asks for, in bytes.
const PART: u64 = 256 << 10;
/// What is read at once of a packed log.
const READ: usize = 64 << 10;
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
    /// What is given begins here.
    at: u64,
    /// From where on it was listed again, as objects were gone.
    again: Option<u64>,
    /// After what is coming, if the log is packed.
    packed: Option<Reader>,
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
            at: from,
            again: None,
            packed: None,
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
        let bytes = match self.coming.next().await {
            Some(Ok(bytes)) => bytes,
            Some(Err(error)) => return self.list_again(error),
            None => return self.read_packed().await,
        };
        self.ahead -= bytes.len() as u64;
        self.at += bytes.len() as u64;
        Ok(Some(bytes))
    }

    /// Where an object is gone the log was packed, and after some time its pieces were
    /// removed: what is there now is listed. Gives no bytes.
    fn list_again(&mut self, error: io::Error) -> io::Result<Option<Bytes>> {
        if error.kind() != io::ErrorKind::NotFound || self.again == Some(self.at) {
            return Err(error);
        }
        self.again = Some(self.at);
        self.coming = FuturesOrdered::new();
        self.ahead = 0;
        self.listed.clear();
        self.listed_to = self.at;
        Ok(Some(Bytes::new()))
    }

    async fn read_packed(&mut self) -> io::Result<Option<Bytes>> {
        let Some(packed) = &mut self.packed else {
            return Ok(None);
        };
        let mut bytes = BytesMut::with_capacity(READ);
        let read = packed.read_buf(&mut bytes).await?;
        self.at += read as u64;
        Ok((read > 0).then(|| bytes.freeze()))
    }

    fn fetch(&mut self, part: Part) {
        self.ahead += part.to - part.from;
        let Part { held, from, to } = part;
        self.coming.push_back(match held {
            Held::Text(text) => {
                let bytes = text.slice(index(from)..index(to));
                std::future::ready(Ok(bytes)).boxed()
            }
            // It is not cut: see `list`.
            Held::Packed { .. } => std::future::ready(Err(self.hole())).boxed(),
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
        if let Some(Held::Packed { key, length }) = pieces.first().map(|piece| &piece.held) {
            let packed = pack::open(&self.inner, key, *length).await?;
            self.packed = Some(packed.read(before, self.end));
            self.listed_to = self.end;
            return Ok(());
        }
        // What is behind the end is not asked for.
        let end = self.end;
        for piece in pieces.into_iter().filter(|piece| piece.start < end) {
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
