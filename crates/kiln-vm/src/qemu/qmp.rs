//! QEMU's control protocol, as much of it as kiln speaks.
//!
//! One JSON object per line, requests answered in order, events in between
//! (QEMU's docs/interop/qmp-spec.txt). The other end may be a QEMU that its
//! guest took over: lines are bounded and nothing in them is believed further
//! than its type.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::BorrowedFd,
    sync::Arc,
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixStream, unix::OwnedReadHalf, unix::OwnedWriteHalf},
    sync::{Mutex, mpsc, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};

/// Longer than any answer to what we ask.
const MAX_LINE: u64 = 1 << 20;
/// Answers that wait to be looked at: of requests that somebody gave up. Each
/// may take as much memory as a line of brackets makes.
const MAX_ANSWERS: usize = 4;
/// QEMU answers at once unless it hangs.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Why a command had no answer. For the operator.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU is gone or its socket is.
    #[error("QEMU's control socket: {0}")]
    Io(#[from] io::Error),
    /// QEMU said no.
    #[error("QEMU refuses {command}: {reason}")]
    Refused {
        /// What was asked.
        command: &'static str,
        /// QEMU's words.
        reason: String,
    },
    /// QEMU said nothing.
    #[error("QEMU does not answer")]
    Silent,
}

/// What QEMU told of the guest's end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Events {
    /// The guest asked for its power to be cut, or to be reset.
    pub shut_down: bool,
    /// The guest told of a panic.
    pub panicked: bool,
    /// The host had no space for what the guest wrote.
    pub disk_full: bool,
    /// The guest wrote more than its disk's file may hold.
    pub disk_limit: bool,
}

/// Answers carry the number of their request: one that nobody waits for any
/// more is not taken for the next one's.
struct Answers {
    receiver: mpsc::Receiver<Value>,
    last: u64,
}

/// A connection.
pub struct Qmp {
    write: Mutex<OwnedWriteHalf>,
    answers: Mutex<Answers>,
    events: watch::Receiver<Events>,
    port_closed: watch::Receiver<bool>,
    reader: JoinHandle<()>,
}

impl Qmp {
    /// Greets QEMU.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn connect(stream: UnixStream) -> Result<Arc<Self>, QmpError> {
        let (read, write) = stream.into_split();
        let (answer_tx, receiver) = mpsc::channel(MAX_ANSWERS);
        let (event_tx, events) = watch::channel(Events::default());
        let (port_tx, port_closed) = watch::channel(false);
        let reader = tokio::spawn(read_lines(read, answer_tx, event_tx, port_tx));
        let qmp = Self {
            write: Mutex::new(write),
            answers: Mutex::new(Answers { receiver, last: 0 }),
            events,
            port_closed,
            reader,
        };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(Arc::new(qmp))
    }

    /// Runs a command.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn execute(
        &self,
        command: &'static str,
        arguments: Value,
    ) -> Result<Value, QmpError> {
        let mut answers = self.answers.lock().await;
        let line = answers.request(command, &arguments);
        let asked = Instant::now();
        self.write.lock().await.write_all(&line).await?;
        let answer = answers.answer(command).await;
        tracing::debug!("QMP {command}: {:.1} ms", milliseconds(asked));
        answer
    }

    /// Gives QEMU a descriptor under this name, for `fd:NAME`.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn give(&self, name: &str, fd: BorrowedFd<'_>) -> Result<(), QmpError> {
        const COMMAND: &str = "getfd";
        let mut answers = self.answers.lock().await;
        let line = answers.request(COMMAND, &json!({ "fdname": name }));
        let write = self.write.lock().await;
        let stream: &UnixStream = write.as_ref();
        let sent = stream.async_io(tokio::io::Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fds = [fd];
            control.push(SendAncillaryMessage::ScmRights(&fds));
            let line = [IoSlice::new(&line)];
            let flags = SendFlags::NOSIGNAL;
            Ok(rustix::net::sendmsg(stream, &line, &mut control, flags)?)
        });
        // The line is far shorter than the socket's buffer.
        if sent.await? < line.len() {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        answers.answer(COMMAND).await.map(drop)
    }

    /// A command of the human monitor; its answer is text.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn monitor(&self, line: &'static str) -> Result<String, QmpError> {
        let arguments = json!({ "command-line": line });
        let answer = self.execute("human-monitor-command", arguments).await?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// What QEMU has told until now.
    pub fn events(&self) -> Events {
        *self.events.borrow()
    }

    /// Whether the helper in the guest has closed its port.
    pub fn port_closed(&self) -> watch::Receiver<bool> {
        self.port_closed.clone()
    }

    /// All that QEMU told, once it has ended.
    pub async fn last_events(&self) -> Events {
        let mut events = self.events.clone();
        let ended = async { while events.changed().await.is_ok() {} };
        // QEMU is gone, so its socket ends as soon as it is read to its end.
        let _ = timeout(ANSWER_DEADLINE, ended).await;
        self.events()
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Answers {
    fn request(&mut self, command: &str, arguments: &Value) -> Vec<u8> {
        self.last += 1;
        let request = json!({ "execute": command, "arguments": arguments, "id": self.last });
        let mut line = request.to_string();
        line.push('\n');
        line.into_bytes()
    }

    async fn answer(&mut self, command: &'static str) -> Result<Value, QmpError> {
        let answer = timeout(ANSWER_DEADLINE, self.next())
            .await
            .map_err(|_| QmpError::Silent)?
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        match answer.get("error") {
            None => Ok(answer.get("return").cloned().unwrap_or(Value::Null)),
            Some(error) => {
                let reason = error.get("desc").and_then(Value::as_str);
                let reason = reason.unwrap_or("no reason given").to_owned();
                Err(QmpError::Refused { command, reason })
            }
        }
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            let answer = self.receiver.recv().await?;
            if answer.get("id").and_then(Value::as_u64) == Some(self.last) {
                return Some(answer);
            }
        }
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

async fn read_lines(
    read: OwnedReadHalf,
    answers: mpsc::Sender<Value>,
    events: watch::Sender<Events>,
    port_closed: watch::Sender<bool>,
) {
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut read)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .await
        {
            Ok(length) if length > 0 && line.ends_with(b"\n") => {}
            // The end, or a line that is too long to be QEMU's.
            _ => return,
        }
        let Ok(message) = serde_json::from_slice::<Value>(&line) else {
            return;
        };
        match message.get("event").and_then(Value::as_str) {
            Some("SHUTDOWN" | "RESET" | "POWERDOWN") => events.send_modify(|events| {
                let asked = message.pointer("/data/guest").and_then(Value::as_bool);
                events.shut_down |= asked.unwrap_or(false);
            }),
            Some("GUEST_PANICKED") => events.send_modify(|events| events.panicked = true),
            Some("BLOCK_IO_ERROR") => events.send_modify(|events| {
                // `nospace` is there only where QEMU would stop the guest for it.
                let reason = message.pointer("/data/reason").and_then(Value::as_str);
                let nospace = message.pointer("/data/nospace") == Some(&Value::Bool(true));
                events.disk_full |= nospace || reason == Some("No space left on device");
                events.disk_limit |= reason == Some("File too large");
            }),
            // There is only the helper's port.
            Some("VSERPORT_CHANGE") => {
                port_closed
                    .send_replace(message.pointer("/data/open") == Some(&Value::Bool(false)));
            }
            Some(_) => {}
            None if message.get("QMP").is_some() => {}
            // Nobody waits for what doesn't fit; a QEMU that floods us with
            // answers shall not hold back its events.
            None => match answers.try_send(message) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => {}
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn qemu_that_says(lines: &'static [u8]) -> Result<Arc<Qmp>, QmpError> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            theirs.write_all(lines).await.unwrap();
            let mut asked = Vec::new();
            let _ = theirs.read_buf(&mut asked).await;
        });
        Qmp::connect(ours).await
    }

    #[tokio::test]
    async fn a_qemu_that_speaks_garbage_is_an_error() {
        let garbage = qemu_that_says(b"\xff\xfe{]\n").await;
        assert!(matches!(garbage, Err(QmpError::Io(_))));
    }

    #[tokio::test]
    async fn events_come_between_answers() {
        let lines =
            b"{\"QMP\":{}}\n{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true}}\n{\"return\":{},\"id\":1}\n";
        let qmp = qemu_that_says(lines).await.unwrap();
        assert!(qmp.events().shut_down);
    }

    #[tokio::test]
    async fn a_full_disk_of_the_host_is_noticed() {
        let lines = b"{\"event\":\"BLOCK_IO_ERROR\",\"data\":{\"reason\":\"No space left on device\"}}\n{\"return\":{},\"id\":1}\n";
        let qmp = qemu_that_says(lines).await.unwrap();
        assert!(qmp.events().disk_full && !qmp.events().disk_limit);
    }

    #[tokio::test]
    async fn a_guest_at_the_limit_of_its_disk_is_not_a_full_host() {
        let lines = b"{\"event\":\"BLOCK_IO_ERROR\",\"data\":{\"reason\":\"File too large\"}}\n{\"return\":{},\"id\":1}\n";
        let qmp = qemu_that_says(lines).await.unwrap();
        assert!(qmp.events().disk_limit && !qmp.events().disk_full);
    }

    #[tokio::test]
    async fn a_refusal_carries_the_reason() {
        let lines = b"{\"return\":{},\"id\":0}\n{\"error\":{\"desc\":\"not now\"},\"id\":1}\n";
        let refused = qemu_that_says(lines).await.err().unwrap();
        assert_eq!(
            refused.to_string(),
            "QEMU refuses qmp_capabilities: not now"
        );
    }

    /// Memory of this process, in KiB.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let row = status.lines().find_map(|row| row.strip_prefix("VmRSS:"));
        let row = row.unwrap().trim().trim_end_matches(" kB");
        row.parse().unwrap()
    }

    #[tokio::test]
    async fn a_line_without_end_is_an_error() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        tokio::spawn(async move { while theirs.write_all(&[b'['; 65536]).await.is_ok() {} });
        let endless = Qmp::connect(ours).await;
        assert!(matches!(endless, Err(QmpError::Io(_))));
    }

    #[tokio::test]
    async fn a_qemu_that_floods_us_takes_little_memory() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let flood = tokio::spawn(async move {
            theirs
                .write_all(b"{\"return\":{},\"id\":1}\n")
                .await
                .unwrap();
            // Late answers, as large in memory as a line can be made.
            let zeros = "0,".repeat(100_000);
            let line = format!("{{\"return\":[{zeros}0],\"id\":0}}\n");
            for _ in 0..100 {
                theirs.write_all(line.as_bytes()).await.unwrap();
                theirs
                    .write_all(b"{\"event\":\"X\",\"data\":[[[[]]]]}\n")
                    .await
                    .unwrap();
            }
            theirs
        });
        let qmp = Qmp::connect(ours).await.unwrap();
        let before = resident();
        let _theirs = flood.await.unwrap();
        let grown = resident().saturating_sub(before);
        assert!(grown < 100 * 1024, "{grown} KiB more");
        drop(qmp);
    }

    proptest::proptest! {
        #[test]
        fn no_lines_make_it_panic_or_wait(
            lines in proptest::collection::vec(".{0,60}", 0..6),
            event in "(SHUTDOWN|RESET|BLOCK_IO_ERROR|GUEST_PANICKED)",
            data in "(null|1|\\[\\]|\\{\"guest\":1\\}|\\{\"reason\":\\[\\]\\})",
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (ours, mut theirs) = UnixStream::pair().unwrap();
                let said = format!("{{\"event\":\"{event}\",\"data\":{data}}}\n{}\n", lines.join("\n"));
                theirs.write_all(said.as_bytes()).await.unwrap();
                theirs.shutdown().await.unwrap();
                assert!(Qmp::connect(ours).await.is_err());
            });
        }
    }
}
