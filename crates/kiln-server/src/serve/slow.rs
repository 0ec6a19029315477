//! Bodies that stop coming: nobody waits for them.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::BoxError;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// How long a body may have nothing to say.
const SILENCE: Duration = Duration::from_secs(30);

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
                Poll::Ready(Some(Err(std::io::Error::new(
                    std::io::ErrorKind::TimedOut,
                    text,
                )
                .into())))
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::sync::mpsc;
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
