//! The frames between kiln and its helper in a guest (images/debian/guest-agent
//! lists their kinds): one letter, the body's length in four bytes
//! (big-endian), the body.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest body either side takes.
pub(crate) const MAX_BODY: usize = 1 << 20;
/// Of the kind and the length.
const HEAD: usize = 5;

/// What one side says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub kind: u8,
    pub body: Vec<u8>,
}

/// Reads frames. Whoever stops waiting for one loses nothing.
pub(crate) struct Frames<R> {
    from: R,
    seen: Vec<u8>,
    /// How much of it was given out. It goes when there is more to read: once
    /// per frame, a guest could make us move megabytes for five bytes.
    given: usize,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub fn new(from: R) -> Self {
        Self {
            from,
            seen: Vec::new(),
            given: 0,
        }
    }

    /// The next one.
    ///
    /// # Errors
    /// At the stream's end, and for a body that is too long.
    pub async fn next(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(frame) = self.complete()? {
                return Ok(frame);
            }
            self.seen.drain(..self.given);
            self.given = 0;
            if self.from.read_buf(&mut self.seen).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn complete(&mut self) -> io::Result<Option<Frame>> {
        let left = self.seen.get(self.given..).unwrap_or_default();
        let Some((&[kind, a, b, c, d], rest)) = left.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > MAX_BODY {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(body) = rest.get(..length).map(<[u8]>::to_vec) else {
            return Ok(None);
        };
        self.given += HEAD + length;
        Ok(Some(Frame { kind, body }))
    }
}

/// Writes a frame, which must not be longer than [`MAX_BODY`].
pub(crate) async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    kind: u8,
    body: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(HEAD + body.len());
    frame.push(kind);
    frame.extend(length.to_be_bytes());
    frame.extend_from_slice(body);
    to.write_all(&frame).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    async fn read_all(bytes: &[u8]) -> (Vec<Frame>, io::ErrorKind) {
        let mut frames = Frames::new(bytes);
        let mut all = Vec::new();
        loop {
            match frames.next().await {
                Ok(frame) => all.push(frame),
                Err(error) => return (all, error.kind()),
            }
        }
    }

    fn block<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        runtime.block_on(future)
    }

    #[test]
    fn a_body_that_is_too_long_is_refused_before_it_comes() {
        let head = [b'O', 0xff, 0xff, 0xff, 0xff];
        let (frames, error) = block(read_all(&head));
        assert_eq!((frames.len(), error), (0, io::ErrorKind::InvalidData));
    }

    #[test]
    fn frames_that_came_together_are_not_moved_for_each_of_them() {
        let sent = [b'O', 0, 0, 0, 0].repeat(8);
        let mut frames = Frames::new(sent.as_slice());
        for _ in 0..8 {
            assert!(block(frames.next()).is_ok());
            assert_eq!(frames.seen.len(), sent.len());
        }
        assert!(block(frames.next()).is_err());
        assert!(frames.seen.is_empty());
    }

    proptest! {
        #[test]
        fn frames_come_as_they_were_sent(
            sent in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..20),
        ) {
            let read = block(async {
                let mut bytes = Vec::new();
                for (kind, body) in &sent {
                    send(&mut bytes, *kind, body).await.unwrap();
                }
                read_all(&bytes).await.0
            });
            let sent: Vec<Frame> = sent.into_iter().map(|(kind, body)| Frame { kind, body }).collect();
            prop_assert_eq!(read, sent);
        }

        #[test]
        fn whatever_a_guest_says_ends(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let (frames, _) = block(read_all(&bytes));
            prop_assert!(frames.iter().all(|frame| frame.body.len() <= MAX_BODY));
        }
    }
}
