//! Bodies that stop coming, and answers that nobody takes: they are not waited for.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::BoxError;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// How long a body may have nothing to say.
const SILENCE: Duration = Duration::from_secs(30);

/// How long a peer may take nothing of what there is for it. Somebody may read a log page
/// by page; but connections are few, and whoever has one and takes nothing keeps others out.
const STALL: Duration = Duration::from_mins(5);

/// A body whose next piece comes within [`SILENCE`], or that fails.
pub(super) struct Patient<B> {
    body: B,
    limit: Pin<Box<Sleep>>,
}

impl<B> Patient<B> {
    pub(super) fn new(body: B) -> Self {
        let limit = Box::pin(tokio::time::sleep(SILENCE));
        Self { body, limit }
    }
}

impl<B> Body for Patient<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => {
                self.limit.as_mut().reset(Instant::now() + SILENCE);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending if self.limit.as_mut().poll(context).is_ready() => {
                let text = "the body stopped coming";
                Poll::Ready(Some(Err(
                    io::Error::new(io::ErrorKind::TimedOut, text).into()
                )))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection whose peer takes what is written within [`STALL`], or that fails.
pub(super) struct Taken<S> {
    stream: S,
    limit: Pin<Box<Sleep>>,
    /// Whether something waits to be taken.
    waits: bool,
}

impl<S> Taken<S> {
    pub(super) fn new(stream: S) -> Self {
        let limit = Box::pin(tokio::time::sleep(STALL));
        Self {
            stream,
            limit,
            waits: false,
        }
    }

    /// What came of a write, or its end when it waits for too long.
    fn judged<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waits = false;
            return written;
        }
        if !self.waits {
            self.waits = true;
            self.limit.as_mut().reset(Instant::now() + STALL);
        }
        self.limit.as_mut().poll(context).map(|()| {
            let text = "nobody takes what is written";
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Taken<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Taken<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judged(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.judged(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.judged(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judged(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::mpsc,
    };
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    type Piece = Result<Frame<Bytes>, Infallible>;

    fn patient() -> (
        mpsc::Sender<Piece>,
        Patient<StreamBody<ReceiverStream<Piece>>>,
    ) {
        let (pieces, body) = mpsc::channel(1);
        let body = StreamBody::new(ReceiverStream::new(body));
        (pieces, Patient::new(body))
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_slow_gets_all_and_one_that_takes_nothing_is_cut() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut ours = Taken::new(ours);
        let reader = async {
            let mut byte = [0; 8];
            for _ in 0..3 {
                tokio::time::sleep(STALL - Duration::from_secs(1)).await;
                theirs.read_exact(&mut byte).await.unwrap();
            }
        };
        let writer = ours.write_all(&[1; 32]);
        let (written, ()) = tokio::join!(writer, reader);
        written.unwrap();
        let began = Instant::now();
        let error = ours.write_all(b"more").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= STALL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_slow_comes_and_one_that_stops_fails() {
        let (pieces, mut body) = patient();
        let sender = async {
            for _ in 0..3 {
                tokio::time::sleep(SILENCE - Duration::from_secs(1)).await;
                let piece = Frame::data(Bytes::from_static(b"x"));
                pieces.send(Ok(piece)).await.unwrap();
            }
        };
        let reader = async {
            for _ in 0..3 {
                assert!(body.frame().await.unwrap().is_ok());
            }
            let began = Instant::now();
            let error = body.frame().await.unwrap().unwrap_err();
            assert_eq!(error.to_string(), "the body stopped coming");
            assert!(began.elapsed() >= SILENCE);
        };
        tokio::join!(sender, reader);
    }
}
