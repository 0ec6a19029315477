//! Commands as channels of a session.

use std::{fmt::Write as _, time::Duration};

use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig, client::Msg};
use tokio::time::timeout;

use super::marker::Scanner;
use crate::{
    machine::{Exec, ExitCode, GuestError, Sink, Stderr, Stdin},
    session::Said,
};

/// How long the output may still come after sshd told the exit status of a
/// command whose own shell was killed, so that no marker will come.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Runs a command until its process has exited.
pub(super) async fn run(
    channel: Channel<Msg>,
    exec: Exec<'_>,
    output: &mut dyn Sink,
) -> Result<ExitCode, GuestError> {
    let nonce = nonce();
    let data_only = exec.stderr == Stderr::Dropped;
    let mut scanner = Scanner::new(&nonce, data_only);
    channel
        .exec(true, command_line(&exec, &nonce))
        .await
        .map_err(|error| lost(&error))?;
    let (mut read, write) = channel.split();
    let mut told = None;
    let mut feed = Box::pin(feed(&write, exec.stdin));
    let mut fed = false;
    let code = loop {
        let message = tokio::select! {
            result = &mut feed, if !fed => {
                // A command need not read all it is given.
                if let Err(error) = result {
                    tracing::debug!(%error, "standard input cut short");
                }
                fed = true;
                continue;
            }
            message = next(&mut read, told.is_some()) => message,
        };
        match message {
            Some(ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. }) => {
                let scanned = scanner.push(&data);
                if !scanned.output.is_empty() {
                    output
                        .write(&scanned.output)
                        .await
                        .map_err(GuestError::Output)?;
                }
                if let Some(status) = scanned.status {
                    break ExitCode(status);
                }
            }
            Some(ChannelMsg::ExitStatus { exit_status }) => told = Some(ExitCode(exit_status)),
            Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                told = Some(by_signal(&signal_name));
            }
            Some(ChannelMsg::Failure) => return Err(GuestError::Connection),
            Some(_) => {}
            None => {
                let rest = scanner.finish();
                output.write(&rest).await.map_err(GuestError::Output)?;
                return told.ok_or(GuestError::Connection);
            }
        }
    };
    drop(feed);
    drain(read, write);
    Ok(code)
}

/// The next message; none at the channel's end, and soon when the command's
/// shell is known to be dead.
async fn next(read: &mut ChannelReadHalf, dead: bool) -> Option<ChannelMsg> {
    if dead {
        timeout(LAST_WORDS, read.wait()).await.ok().flatten()
    } else {
        read.wait().await
    }
}

/// Keeps the channel open for what lives on in the background: closing it
/// would end that with SIGPIPE at its next word.
fn drain(mut read: ChannelReadHalf, write: ChannelWriteHalf<Msg>) {
    tokio::spawn(async move {
        while read.wait().await.is_some() {}
        drop(write);
    });
}

fn command_line(exec: &Exec<'_>, nonce: &str) -> String {
    let format = Scanner::printf_format(nonce);
    let mut line = String::new();
    let stderr = match exec.stderr {
        Stderr::Merged => "2>&1",
        Stderr::Dropped => {
            let _ = write!(line, "printf '{format}' 0; ");
            "2>/dev/null"
        }
    };
    let stdin = match exec.stdin {
        Stdin::Empty => "</dev/null",
        Stdin::Bytes(_) | Stdin::Reader(_) => "",
    };
    // The newline before the bracket: the command may end in a comment.
    let _ = write!(
        line,
        "( {}\n) {stderr} {stdin}; s=$?; printf '{format}' \"$s\"; exit \"$s\"",
        exec.command.line()
    );
    line
}

async fn feed(write: &ChannelWriteHalf<Msg>, stdin: Stdin<'_>) -> Result<(), russh::Error> {
    match stdin {
        Stdin::Empty => {}
        Stdin::Bytes(bytes) => write.data(bytes).await?,
        Stdin::Reader(reader) => write.data(reader).await?,
    }
    write.eof().await
}

fn nonce() -> String {
    let mut bytes = [0u8; 16];
    // getrandom never fails once the kernel's pool is ready, which it is long
    // before anybody starts a guest; a weaker nonce would only let a job end
    // its own command.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn by_signal(signal: &Sig) -> ExitCode {
    let number = match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::USR1 => 10,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        _ => 15,
    };
    ExitCode(128 + number)
}

fn lost(error: &russh::Error) -> GuestError {
    tracing::debug!(%error, "channel");
    GuestError::Connection
}

/// A command whose streams are apart, for `guest_ssh`.
pub struct Piped {
    read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
}

impl Piped {
    pub(super) async fn start(channel: Channel<Msg>, command: &str) -> Result<Self, GuestError> {
        channel
            .exec(true, command)
            .await
            .map_err(|error| lost(&error))?;
        let (read, write) = channel.split();
        Ok(Self { read, write })
    }

    /// The two directions apart.
    #[must_use]
    pub fn split(self) -> (PipedOutput, PipedInput) {
        let output = PipedOutput {
            read: self.read,
            status: None,
        };
        (output, PipedInput { write: self.write })
    }
}

/// What a [`Piped`] command reads.
pub struct PipedInput {
    write: ChannelWriteHalf<Msg>,
}

impl PipedInput {
    /// Gives it these bytes.
    ///
    /// # Errors
    /// [`GuestError::Connection`] when it reads no more.
    pub async fn write(&self, bytes: &[u8]) -> Result<(), GuestError> {
        self.write.data(bytes).await.map_err(|error| lost(&error))
    }

    /// Ends its input.
    ///
    /// # Errors
    /// [`GuestError::Connection`] when the channel is gone.
    pub async fn end(&self) -> Result<(), GuestError> {
        self.write.eof().await.map_err(|error| lost(&error))
    }
}

/// What a [`Piped`] command says.
pub struct PipedOutput {
    read: ChannelReadHalf,
    status: Option<ExitCode>,
}

impl PipedOutput {
    /// The next piece. [`Said::Exit`] is the last one.
    ///
    /// # Errors
    /// [`GuestError::Connection`] when the session ends before the command.
    pub async fn next(&mut self) -> Result<Said, GuestError> {
        loop {
            match next(&mut self.read, self.status.is_some()).await {
                Some(ChannelMsg::Data { data }) => return Ok(Said::Out(data.to_vec())),
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    return Ok(Said::Err(data.to_vec()));
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => {
                    self.status = Some(ExitCode(exit_status));
                }
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                    self.status = Some(by_signal(&signal_name));
                }
                Some(ChannelMsg::Failure) => return Err(GuestError::Connection),
                Some(_) => {}
                None => return self.status.map(Said::Exit).ok_or(GuestError::Connection),
            }
        }
    }
}
