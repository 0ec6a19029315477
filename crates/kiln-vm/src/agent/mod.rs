//! The way into a guest by kiln's helper in it, over a virtio port.
//!
//! Only guests that start from a template of an image that has the helper are
//! entered like this ([`crate::qemu`]): it was waiting when they were frozen,
//! so that there is nothing to log into and nothing to start. Where the helper
//! is not there, stops, or would not give what a login gives, the way in is
//! SSH. `images/debian/guest-agent` is the other end, and says what the frames
//! mean.
//!
//! Everything that comes from there is hostile: frames have a limit, and an
//! answer that makes no sense ends this way in.

mod command;
pub(crate) mod frame;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::{
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::timeout,
};

use crate::machine::{Command, Exec, ExitCode, File, GuestError, Put, Sink, Stderr, Stdin};
pub use command::{Input, Output};
use frame::{Frame, Frames, MAX_BODY};

/// What does not depend on a job's own programs.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// A file's bytes in one frame; its path and mode take some more.
const FILE_PIECE: usize = 512 << 10;
/// The helper's own sentences.
const MAX_REASON: usize = 4 << 10;

/// Whether the helper has closed the port, as the machine says.
pub(crate) type Closed = watch::Receiver<bool>;

/// The helper in one guest.
pub struct Agent {
    /// Not here while something runs, or when that was given up half-way:
    /// nobody knows then what the next frames belong to.
    slot: Slot,
    /// What a login of this guest depended on when its template was made.
    login: String,
}

/// Where a port is while nothing runs.
type Slot = Arc<Mutex<Option<Port>>>;

struct Port {
    frames: Frames<OwnedReadHalf>,
    write: OwnedWriteHalf,
    closed: Closed,
}

impl Port {
    async fn send(&mut self, kind: u8, body: &[u8]) -> Result<(), GuestError> {
        let sent = timeout(ANSWER_DEADLINE, frame::send(&mut self.write, kind, body)).await;
        let sent = sent.map_err(|_| GuestError::Connection)?;
        sent.map_err(|error| lost(&error))
    }

    async fn next(&mut self) -> Result<Frame, GuestError> {
        next(&mut self.frames, &mut self.closed).await
    }

    /// Waits for `K`, or for the reason why not.
    async fn done(&mut self) -> Result<Result<(), String>, GuestError> {
        let answer = timeout(ANSWER_DEADLINE, self.next()).await;
        let answer = answer.map_err(|_| GuestError::Connection)??;
        match answer.kind {
            b'K' => Ok(Ok(())),
            b'F' => Ok(Err(reason(&answer.body))),
            _ => Err(nonsense(&answer)),
        }
    }
}

impl Agent {
    /// The helper at the other end of this port, if it answers within the
    /// time. `login` is what [`Agent::login`] said when the template was made.
    ///
    /// # Errors
    /// [`GuestError::Connection`] when it does not.
    pub(crate) async fn meet(
        stream: UnixStream,
        closed: Closed,
        login: String,
        within: Duration,
    ) -> Result<Self, GuestError> {
        let (read, write) = stream.into_split();
        let mut port = Port {
            frames: Frames::new(read),
            write,
            closed,
        };
        let met = timeout(within, hello(&mut port)).await;
        met.map_err(|_| GuestError::Connection)??;
        Ok(Self {
            slot: Arc::new(Mutex::new(Some(port))),
            login,
        })
    }

    /// Whether nothing can be asked of it: it is busy, or lost.
    pub fn is_closed(&self) -> bool {
        self.slot
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
    }

    fn take(&self) -> Result<Port, GuestError> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.take().ok_or(GuestError::Connection)
    }

    fn give_back(&self, port: Port) {
        give_back(&self.slot, port);
    }

    /// One question with one short answer.
    async fn ask(&self, kind: u8, body: &[u8]) -> Result<Result<(), String>, GuestError> {
        let mut port = self.take()?;
        port.send(kind, body).await?;
        let answer = port.done().await?;
        self.give_back(port);
        Ok(answer)
    }

    /// Sets what commands find in their environment: what a login gave.
    pub(crate) async fn set_environment(
        &self,
        variables: &[u8],
    ) -> Result<Result<(), String>, GuestError> {
        self.ask(b'V', variables).await
    }

    /// Sets the umask and the limits of commands: those of a login, as its
    /// `umask` and its `/proc/self/limits` say.
    pub(crate) async fn set_bounds(&self, said: &[u8]) -> Result<Result<(), String>, GuestError> {
        self.ask(b'B', said).await
    }

    /// Makes the guest a machine of its own: `line` has the time and random
    /// bytes.
    pub(crate) async fn renew(&self, line: &str) -> Result<Result<(), String>, GuestError> {
        self.ask(b'I', line.as_bytes()).await
    }

    /// A digest of what a login depends on.
    pub(crate) async fn login(&self) -> Result<String, GuestError> {
        let mut port = self.take()?;
        port.send(b'L', &[]).await?;
        let answer = timeout(ANSWER_DEADLINE, port.next()).await;
        let answer = answer.map_err(|_| GuestError::Connection)??;
        if answer.kind != b'L' {
            return Err(nonsense(&answer));
        }
        self.give_back(port);
        Ok(crate::image::hex(&Sha256::digest(&answer.body)))
    }

    /// Whether commands still run as a new login would run them.
    ///
    /// # Errors
    /// [`GuestError::Connection`].
    pub async fn is_fresh(&self) -> Result<bool, GuestError> {
        Ok(self.was(&self.login().await?))
    }

    /// Whether this is what a login depended on when the template was made.
    pub(crate) fn was(&self, login: &str) -> bool {
        self.login == login
    }

    /// As [`crate::machine::Guest::put`].
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn put(
        &self,
        files: &[Put<'_>],
        output: &mut dyn Sink,
    ) -> Result<Option<usize>, GuestError> {
        let mut port = self.take()?;
        let mut failed = None;
        for (index, file) in files.iter().enumerate() {
            if let Err(reason) = put_one(&mut port, file).await? {
                let line = format!("{}\n", reason.trim_end());
                output
                    .write(line.as_bytes())
                    .await
                    .map_err(GuestError::Output)?;
                failed = Some(index);
                break;
            }
        }
        self.give_back(port);
        Ok(failed)
    }

    /// As [`crate::machine::Guest::exec`].
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn exec(
        &self,
        exec: Exec<'_>,
        output: &mut dyn Sink,
    ) -> Result<ExitCode, GuestError> {
        let how = match exec.stderr {
            Stderr::Merged => "merged",
            Stderr::Dropped => "apart",
        };
        let from = match exec.stdin {
            Stdin::Empty => "null",
            Stdin::Bytes(_) | Stdin::Reader(_) => "input",
        };
        let (mut said, input) = self.start([how, from], &exec.command).await?;
        let mut fed = from == "null";
        let mut feed = std::pin::pin!(input.feed(exec.stdin));
        // One future for all of it: the last piece gives the port back, and
        // must not be dropped in the middle of that.
        let mut answer = std::pin::pin!(said.pass_to(output));
        loop {
            tokio::select! {
                // A command need not read all it is given.
                () = &mut feed, if !fed => fed = true,
                code = &mut answer => return code,
            }
        }
    }

    /// Runs a command of the login shell with its streams apart.
    ///
    /// # Errors
    /// [`GuestError::Connection`].
    pub(crate) async fn pipe(&self, command: &str) -> Result<(Output, Input), GuestError> {
        self.start(["apart", "input"], &Command::Line(command))
            .await
    }

    async fn start(
        &self,
        streams: [&str; 2],
        command: &Command<'_>,
    ) -> Result<(Output, Input), GuestError> {
        let request = request(streams, command)?;
        let mut port = self.take()?;
        port.send(b'X', &request).await?;
        Ok(command::follow(port, Arc::clone(&self.slot)))
    }
}

fn give_back(slot: &Slot, port: Port) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(port);
}

async fn hello(port: &mut Port) -> Result<(), GuestError> {
    let mut nonce = [0u8; 16];
    rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())
        .map_err(|_| GuestError::Host)?;
    port.send(b'H', &nonce).await?;
    loop {
        let answer = port.next().await?;
        // What came before is an answer to somebody else.
        if answer.kind == b'H' && answer.body == nonce {
            return Ok(());
        }
    }
}

async fn put_one(port: &mut Port, file: &Put<'_>) -> Result<Result<(), String>, GuestError> {
    let File { path, mode, bytes } = match file {
        Put::Directory { path, mode } => {
            let body = format!("{mode:o} {path}");
            port.send(b'M', &bounded(body.into_bytes())?).await?;
            return port.done().await;
        }
        Put::File(file) => file,
    };
    let mut pieces = bytes.chunks(FILE_PIECE);
    let mut body = format!("{mode:o} {path}\0").into_bytes();
    body.extend_from_slice(pieces.next().unwrap_or_default());
    port.send(b'P', &bounded(body)?).await?;
    let mut done = port.done().await?;
    for piece in pieces {
        if done.is_err() {
            break;
        }
        port.send(b'A', piece).await?;
        done = port.done().await?;
    }
    Ok(done)
}

/// The body of an `X`.
fn request(streams: [&str; 2], command: &Command<'_>) -> Result<Vec<u8>, GuestError> {
    let mut words = streams.to_vec();
    match command {
        Command::Line(line) => words.extend(["", "", "-c", line]),
        Command::Program {
            directory,
            words: program,
        } => {
            words.push(directory);
            words.extend(program.iter());
        }
    }
    bounded(words.join("\0").into_bytes())
}

/// What is longer is nobody's honest path or command.
fn bounded(body: Vec<u8>) -> Result<Vec<u8>, GuestError> {
    if body.len() > MAX_BODY {
        tracing::warn!(
            "a command of {} bytes for the guest is too long",
            body.len()
        );
        return Err(GuestError::Host);
    }
    Ok(body)
}

async fn next(
    frames: &mut Frames<OwnedReadHalf>,
    closed: &mut Closed,
) -> Result<Frame, GuestError> {
    tokio::select! {
        // What was said before the port was closed comes first.
        biased;
        frame = frames.next() => frame.map_err(|error| lost(&error)),
        _ = closed.wait_for(|closed| *closed) => {
            tracing::debug!("the helper in the guest is gone");
            Err(GuestError::Connection)
        }
    }
}

fn reason(body: &[u8]) -> String {
    let bytes = body.get(..MAX_REASON).unwrap_or(body);
    String::from_utf8_lossy(bytes).into_owned()
}

fn nonsense(answer: &Frame) -> GuestError {
    tracing::debug!(
        kind = answer.kind,
        "an answer of the guest's helper makes no sense"
    );
    GuestError::Connection
}

fn lost(error: &io::Error) -> GuestError {
    tracing::debug!(%error, "the port to the guest's helper");
    GuestError::Connection
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Bounded;
    use proptest::prelude::*;
    use tokio::{io::AsyncWriteExt, sync::watch};

    /// A helper that answers the greeting, then says this, and no more if it
    /// ends. It goes on to take what it is asked: nobody reads the answer to a
    /// question that could not be sent.
    async fn helper(says: Vec<u8>, ends: bool) -> (Agent, watch::Sender<bool>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (tell, closed) = watch::channel(false);
        tokio::spawn(async move {
            let (read, mut write) = theirs.into_split();
            let mut frames = Frames::new(read);
            let hello = frames.next().await.unwrap();
            frame::send(&mut write, b'H', &hello.body).await.unwrap();
            let _ = write.write_all(&says).await;
            if ends {
                let _ = write.shutdown().await;
            }
            while frames.next().await.is_ok() {}
        });
        let agent = Agent::meet(ours, closed, String::new(), ANSWER_DEADLINE).await;
        (agent.unwrap(), tell)
    }

    fn frames(all: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, body) in all {
            bytes.push(*kind);
            bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(body);
        }
        bytes
    }

    #[tokio::test]
    async fn output_and_status_come_through_and_the_port_is_free_again() {
        let said = frames(&[(b'O', b"out"), (b'R', b"err"), (b'S', b"7"), (b'K', b"")]);
        let (agent, _tell) = helper(said, false).await;
        let mut output = Vec::new();
        let code = agent.exec(Exec::new("x"), &mut output).await.unwrap();
        assert_eq!((code, output.as_slice()), (ExitCode(7), &b"out"[..]));
        assert!(!agent.is_closed());
        assert!(agent.renew("1 2 3").await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_command_that_was_given_up_takes_the_helper_with_it() {
        let (agent, _tell) = helper(Vec::new(), false).await;
        let mut output = Vec::new();
        let never = timeout(
            Duration::from_millis(20),
            agent.exec(Exec::new("x"), &mut output),
        );
        assert!(never.await.is_err());
        assert!(agent.is_closed());
        let next = agent.exec(Exec::new("x"), &mut output).await;
        assert!(matches!(next, Err(GuestError::Connection)));
    }

    #[tokio::test]
    async fn a_command_that_ends_before_it_has_read_its_input_tells_its_status() {
        let input = vec![0; 4 << 20];
        for _ in 0..50 {
            let (agent, _tell) = helper(frames(&[(b'S', b"3"), (b'K', b"")]), false).await;
            let exec = Exec::with_stdin("x", &input);
            let code = timeout(ANSWER_DEADLINE, agent.exec(exec, &mut Vec::new())).await;
            assert_eq!(code.expect("an answer").unwrap(), ExitCode(3));
            assert!(agent.renew("1 2 3").await.unwrap().is_ok());
        }
    }

    #[tokio::test]
    async fn a_port_that_the_guest_closes_is_a_lost_connection() {
        let (agent, tell) = helper(Vec::new(), false).await;
        tell.send_replace(true);
        let lost = agent.exec(Exec::new("x"), &mut Vec::new()).await;
        assert!(matches!(lost, Err(GuestError::Connection)));
    }

    proptest! {
        #[test]
        fn whatever_a_helper_says_is_an_answer_or_an_error(
            kinds in proptest::collection::vec((prop_oneof![Just(b'O'), Just(b'S'), Just(b'K'), Just(b'F'), any::<u8>()],
                proptest::collection::vec(any::<u8>(), 0..40)), 0..12),
            tail in proptest::collection::vec(any::<u8>(), 0..40),
            asked in 0..4usize,
        ) {
            let all: Vec<(u8, &[u8])> = kinds.iter().map(|(kind, body)| (*kind, body.as_slice())).collect();
            let mut said = frames(&all);
            said.extend(tail);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (agent, _tell) = helper(said, true).await;
                let mut output = Bounded::new(1 << 10);
                let answered = async {
                    match asked {
                        0 => agent.exec(Exec::with_stdin("x", b"input"), &mut output).await.map(drop),
                        1 => agent.renew("1 2 3").await.map(drop),
                        2 => agent.login().await.map(drop),
                        _ => agent.put(&[Put::Directory { path: "/x".into(), mode: 0o700 }], &mut output).await.map(drop),
                    }
                };
                // The port has ended, so nothing is left to wait for.
                let _ = timeout(ANSWER_DEADLINE, answered).await.expect("an answer");
            });
        }
    }
}
