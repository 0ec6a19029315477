//! A command that runs in the guest: what it says, what it is given.

use tokio::{
    io::AsyncReadExt,
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::{
    ANSWER_DEADLINE, Closed, Port, Slot, frame, frame::Frames, give_back, lost, next, nonsense,
    reason,
};
use crate::{
    machine::{ExitCode, GuestError, Sink, Stdin},
    session::Said,
};

/// Standard input in one frame.
const PIECE: usize = 32 << 10;
/// Frames on their way to the guest.
const QUEUED: usize = 4;

/// What a command says. When it is dropped before the command's end, the port
/// is lost.
pub struct Output {
    /// Until the command's end.
    frames: Option<Frames<OwnedReadHalf>>,
    closed: Closed,
    slot: Slot,
    /// Tells the writer that the command has ended; it gives its half back.
    writer: Option<(oneshot::Sender<()>, JoinHandle<OwnedWriteHalf>)>,
}

/// What a command is given.
pub struct Input(mpsc::Sender<(u8, Vec<u8>)>);

/// Follows a command that was just asked for.
pub(super) fn follow(port: Port, slot: Slot) -> (Output, Input) {
    let (queue, queued) = mpsc::channel(QUEUED);
    let (ended, told) = oneshot::channel();
    // A task of its own: whoever gives up in the middle of a frame would leave
    // half of it.
    let writer = tokio::spawn(write(port.write, queued, told));
    let output = Output {
        frames: Some(port.frames),
        closed: port.closed,
        slot,
        writer: Some((ended, writer)),
    };
    (output, Input(queue))
}

async fn write(
    mut to: OwnedWriteHalf,
    mut queued: mpsc::Receiver<(u8, Vec<u8>)>,
    mut ended: oneshot::Receiver<()>,
) -> OwnedWriteHalf {
    loop {
        let frame = tokio::select! {
            frame = queued.recv() => frame,
            _ = &mut ended => return to,
        };
        let sent = match frame {
            Some((kind, body)) => frame::send(&mut to, kind, &body).await,
            None => {
                let _ = ended.await;
                return to;
            }
        };
        if let Err(error) = sent {
            // The reader sees the same end.
            tracing::debug!(%error, "input for the guest");
            return to;
        }
    }
}

impl Output {
    /// The next piece. [`Said::Exit`] is the last one.
    ///
    /// # Errors
    /// [`GuestError::Connection`] when the way into the guest is lost.
    pub async fn next(&mut self) -> Result<Said, GuestError> {
        let frames = self.frames.as_mut().ok_or(GuestError::Connection)?;
        let answer = next(frames, &mut self.closed).await?;
        match answer.kind {
            b'O' => Ok(Said::Out(answer.body)),
            b'R' => Ok(Said::Err(answer.body)),
            b'S' => {
                let text = std::str::from_utf8(&answer.body).ok();
                let status = text.and_then(|text| text.parse::<u8>().ok());
                let status = status.ok_or_else(|| nonsense(&answer))?;
                self.end().await?;
                Ok(Said::Exit(ExitCode(status.into())))
            }
            b'F' => {
                tracing::warn!("the helper in the guest: {}", reason(&answer.body));
                Err(GuestError::Connection)
            }
            _ => Err(nonsense(&answer)),
        }
    }

    /// Passes all on to this sink, without standard error where that is apart.
    pub(super) async fn pass_to(&mut self, sink: &mut dyn Sink) -> Result<ExitCode, GuestError> {
        loop {
            match self.next().await? {
                Said::Out(bytes) => sink.write(&bytes).await.map_err(GuestError::Output)?,
                Said::Err(_) => {}
                Said::Exit(code) => return Ok(code),
            }
        }
    }

    /// The port is free again.
    async fn end(&mut self) -> Result<(), GuestError> {
        let (ended, writer) = self.writer.take().ok_or(GuestError::Connection)?;
        let _ = ended.send(());
        let write = timeout(ANSWER_DEADLINE, writer).await;
        let write = write.map_err(|_| GuestError::Connection)?;
        let write = write.map_err(|error| lost(&error.into()))?;
        let frames = self.frames.take().ok_or(GuestError::Connection)?;
        let closed = self.closed.clone();
        give_back(
            &self.slot,
            Port {
                frames,
                write,
                closed,
            },
        );
        Ok(())
    }
}

impl Input {
    /// Gives it these bytes.
    ///
    /// # Errors
    /// [`GuestError::Connection`] when it has ended.
    pub async fn write(&self, bytes: &[u8]) -> Result<(), GuestError> {
        for piece in bytes.chunks(PIECE) {
            self.send(b'D', piece).await?;
        }
        Ok(())
    }

    /// Ends its input.
    ///
    /// # Errors
    /// [`GuestError::Connection`] when it has ended.
    pub async fn end(&self) -> Result<(), GuestError> {
        self.send(b'E', &[]).await
    }

    async fn send(&self, kind: u8, body: &[u8]) -> Result<(), GuestError> {
        let sent = self.0.send((kind, body.to_vec())).await;
        sent.map_err(|_| GuestError::Connection)
    }

    /// Gives it all of this, as far as it is wanted.
    pub(super) async fn feed(self, stdin: Stdin<'_>) {
        let fed = match stdin {
            Stdin::Empty => Ok(()),
            Stdin::Bytes(bytes) => self.write(bytes).await,
            Stdin::Reader(reader) => {
                let mut piece = vec![0; PIECE];
                let mut sent = Ok(());
                while let (Ok(()), Ok(length @ 1..)) = (&sent, reader.read(&mut piece).await) {
                    sent = self.write(piece.get(..length).unwrap_or_default()).await;
                }
                sent
            }
        };
        if fed.is_ok() {
            let _ = self.end().await;
        }
    }
}
