//! The private socket behind `guest_ssh` and upstream's `control` commands.
//!
//! A script of the image says `guest_ssh … command`; that is a kiln process
//! which connects here ([`client`]) and names the port under which the script
//! knows its guest. The command then is a channel of the guest's session. The
//! same socket serves `kiln image control`, where a process that booted a
//! guest is the server.
//!
//! Messages: a tag of one byte, a length of four (big-endian), the bytes.

use std::{
    io,
    path::Path,
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::QemuGuest;
use crate::{
    image::functions::GUEST_PORT,
    session::{Input, Output, Said, Session},
    socket,
};

/// The largest message.
const MAX_MESSAGE: usize = 64 * 1024;

const REQUEST: u8 = 0;
const STDIN: u8 = 1;
const STDIN_END: u8 = 2;
const STDOUT: u8 = 3;
const STDERR: u8 = 4;
const EXIT: u8 = 5;

/// What a client asks.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Run a command in the guest.
    Ssh {
        /// The guest.
        port: u16,
        /// The command, for its user's shell.
        command: String,
    },
    /// Boot a guest and stay until it ends.
    Boot {
        /// Its architecture.
        arch: String,
        /// The port that is its name from now on.
        port: u16,
    },
    /// Wait until a guest lets us in.
    Wait {
        /// The guest.
        port: u16,
    },
    /// End a guest.
    Cleanup {
        /// The guest.
        port: u16,
    },
}

/// Knows the guests behind a socket. Errors are sentences for the script.
#[async_trait]
pub trait Host: Send + Sync {
    /// A session of the guest with this port.
    async fn session(&self, port: u16) -> Result<Arc<Session>, String>;
    /// Boots a guest; returns when it has ended.
    async fn boot(&self, arch: &str, port: u16) -> Result<(), String>;
    /// Waits until a guest lets us in.
    async fn wait(&self, port: u16) -> Result<(), String>;
    /// Ends a guest.
    async fn cleanup(&self, port: u16) -> Result<(), String>;
}

/// A guest's own socket: there is only itself.
pub(super) struct OneGuest(pub Weak<QemuGuest>);

#[async_trait]
impl Host for OneGuest {
    async fn session(&self, port: u16) -> Result<Arc<Session>, String> {
        match self.0.upgrade() {
            Some(guest) if port == GUEST_PORT => {
                let session = guest.session_for_command().await;
                session.map_err(|error| error.to_string())
            }
            _ => Err(format!("no guest has the port {port}")),
        }
    }

    async fn boot(&self, _arch: &str, _port: u16) -> Result<(), String> {
        Err("only sanity_check boots guests of its own".into())
    }

    async fn wait(&self, port: u16) -> Result<(), String> {
        self.session(port).await.map(drop)
    }

    async fn cleanup(&self, _port: u16) -> Result<(), String> {
        Err("the job ends its guest itself".into())
    }
}

/// A listening socket.
pub struct Control {
    listener: UnixListener,
    host: Arc<dyn Host>,
}

impl Control {
    /// Listens; only this user may connect.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn bind(path: &Path, host: Arc<dyn Host>) -> io::Result<Self> {
        let listener = socket::listen(path)?;
        Ok(Self { listener, host })
    }

    /// Serves until dropped.
    pub async fn serve(self) {
        while let Ok((stream, _)) = self.listener.accept().await {
            let host = Arc::clone(&self.host);
            tokio::spawn(async move {
                if let Err(error) = serve_one(stream, &*host).await {
                    tracing::debug!(%error, "control client");
                }
            });
        }
    }
}

async fn serve_one(stream: UnixStream, host: &dyn Host) -> io::Result<()> {
    let (mut read, mut write) = stream.into_split();
    let Some((REQUEST, request)) = receive(&mut read).await? else {
        return Ok(());
    };
    let done = match serde_json::from_slice(&request)? {
        Request::Ssh { port, command } => match pipe(host, port, &command).await {
            Ok(piped) => return ssh(piped, read, write).await,
            Err(error) => Err(error),
        },
        Request::Boot { arch, port } => host.boot(&arch, port).await,
        Request::Wait { port } => host.wait(port).await,
        Request::Cleanup { port } => host.cleanup(port).await,
    };
    let status = match done {
        Ok(()) => 0,
        Err(error) => {
            send(&mut write, STDERR, format!("{error}\n").as_bytes()).await?;
            1u32
        }
    };
    send(&mut write, EXIT, &status.to_be_bytes()).await
}

/// Starts the command. Two at once may find the helper in the guest free, which
/// runs one: the other one asks again, and gets a login.
async fn pipe(host: &dyn Host, port: u16, command: &str) -> Result<(Output, Input), String> {
    if let Ok(piped) = host.session(port).await?.pipe(command).await {
        return Ok(piped);
    }
    let piped = host.session(port).await?.pipe(command).await;
    piped.map_err(|error| error.to_string())
}

async fn ssh(
    (mut output, input): (Output, Input),
    mut read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let lost = |_| io::Error::from(io::ErrorKind::ConnectionReset);
    let feed = async {
        while let Some((tag, bytes)) = receive(&mut read).await? {
            match tag {
                STDIN => input.write(&bytes).await.map_err(lost)?,
                STDIN_END => input.end().await.map_err(lost)?,
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        // The client is gone: nobody waits for the command.
        Err::<(), _>(io::Error::from(io::ErrorKind::UnexpectedEof))
    };
    let answer = async {
        loop {
            match output.next().await {
                Ok(Said::Out(bytes)) => send(&mut write, STDOUT, &bytes).await?,
                Ok(Said::Err(bytes)) => send(&mut write, STDERR, &bytes).await?,
                Ok(Said::Exit(code)) => {
                    return send(&mut write, EXIT, &code.0.to_be_bytes()).await;
                }
                // As ssh: 255 for a lost connection.
                Err(_) => return send(&mut write, EXIT, &255u32.to_be_bytes()).await,
            }
        }
    };
    tokio::pin!(answer);
    tokio::select! {
        answered = &mut answer => answered,
        fed = feed => match fed {
            // Input that the command did not want ends nothing but itself.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => answer.await,
            Err(error) => Err(error),
            Ok(()) => answer.await,
        },
    }
}

async fn send(write: &mut (impl AsyncWrite + Unpin), tag: u8, bytes: &[u8]) -> io::Result<()> {
    for piece in pieces(bytes) {
        let length = u32::try_from(piece.len()).map_err(io::Error::other)?;
        write.write_u8(tag).await?;
        write.write_u32(length).await?;
        write.write_all(piece).await?;
    }
    write.flush().await
}

fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    // An empty message is still one message.
    let empty = bytes.is_empty().then_some(bytes);
    empty.into_iter().chain(bytes.chunks(MAX_MESSAGE))
}

async fn receive(read: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(u8, Vec<u8>)>> {
    let tag = match read.read_u8().await {
        Ok(tag) => tag,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = read.read_u32().await? as usize;
    if length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    read.read_exact(&mut bytes).await?;
    Ok(Some((tag, bytes)))
}

/// The client: what `guest_ssh`, `cmd_boot`, `_wait_boot` and `cmd_cleanup`
/// run.
pub mod client {
    use super::{EXIT, REQUEST, Request, STDERR, STDIN, STDIN_END, STDOUT, receive, send};
    use std::{io, path::Path};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Options of ssh that take a value.
    const VALUED: &[&str] = &["-o", "-i", "-l", "-F", "-J", "-b", "-c", "-e", "-m", "-p"];

    /// Understands a script's words: `ssh [-n] [-p PORT] [user@]host command…`,
    /// `boot ARCH PORT [MEANS]`, `wait PORT`, `cleanup PORT`. The second value
    /// is whether standard input is to be passed on.
    ///
    /// # Errors
    /// A sentence for the script.
    pub fn parse(words: &[String]) -> Result<(Request, bool), String> {
        let word = |index: usize| words.get(index).map(String::as_str);
        let port = |index: usize| -> Result<u16, String> {
            let text = word(index).ok_or("a port is missing")?;
            text.parse().map_err(|_| format!("`{text}` is no port"))
        };
        match word(0) {
            Some("ssh") => parse_ssh(words.get(1..).unwrap_or_default()),
            Some("boot") => {
                let arch = word(1).ok_or("an architecture is missing")?.to_owned();
                Ok((
                    Request::Boot {
                        arch,
                        port: port(2)?,
                    },
                    false,
                ))
            }
            Some("wait") => Ok((Request::Wait { port: port(1)? }, false)),
            Some("cleanup") => Ok((Request::Cleanup { port: port(1)? }, false)),
            _ => Err("ssh, boot, wait or cleanup is missing".into()),
        }
    }

    fn parse_ssh(words: &[String]) -> Result<(Request, bool), String> {
        let mut port = crate::image::functions::GUEST_PORT;
        let mut stdin = true;
        let mut words = words.iter();
        let mut rest = Vec::new();
        while let Some(word) = words.next() {
            match word.as_str() {
                "-n" => stdin = false,
                option if VALUED.contains(&option) => {
                    let value = words
                        .next()
                        .ok_or_else(|| format!("{option} has no value"))?;
                    if option == "-p" {
                        port = value.parse().map_err(|_| format!("`{value}` is no port"))?;
                    }
                }
                option if option.starts_with('-') => {}
                _host => {
                    rest.extend(words.by_ref().map(String::as_str));
                }
            }
        }
        if rest.is_empty() {
            return Err("guest_ssh needs a command".into());
        }
        // As ssh: the words are joined, the guest's shell splits them again.
        let command = rest.join(" ");
        Ok((Request::Ssh { port, command }, stdin))
    }

    /// Asks, passes the streams, returns the exit status.
    ///
    /// # Errors
    /// When the socket or a stream of ours fails.
    pub async fn run(socket: &Path, request: &Request, stdin: bool) -> io::Result<u8> {
        let (mut read, mut write) = crate::socket::connect(socket)?.into_split();
        send(&mut write, REQUEST, &serde_json::to_vec(request)?).await?;
        let feeding = tokio::spawn(async move {
            if stdin {
                feed(&mut write).await?;
            }
            send(&mut write, STDIN_END, &[]).await?;
            // Closing our half would say that nobody waits any more.
            std::future::pending::<io::Result<()>>().await
        });
        let status = answers(&mut read).await;
        feeding.abort();
        status
    }

    async fn feed(write: &mut (impl tokio::io::AsyncWrite + Unpin)) -> io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        let mut from = tokio::io::stdin();
        // An error of standard input is its end.
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            send(write, STDIN, buffer.get(..length).unwrap_or_default()).await?;
        }
        Ok(())
    }

    async fn answers(read: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<u8> {
        let (mut out, mut err) = (tokio::io::stdout(), tokio::io::stderr());
        while let Some((tag, bytes)) = receive(read).await? {
            match tag {
                STDOUT => {
                    out.write_all(&bytes).await?;
                    out.flush().await?;
                }
                STDERR => {
                    err.write_all(&bytes).await?;
                    err.flush().await?;
                }
                EXIT => {
                    let status = bytes.try_into().map_or(255, u32::from_be_bytes);
                    return Ok(u8::try_from(status).unwrap_or(255));
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(255)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn words(line: &str) -> Vec<String> {
            line.split(' ').map(str::to_owned).collect()
        }

        #[test]
        fn guest_ssh_is_understood_as_real_images_call_it() {
            let line =
                "ssh -p 8022 -o StrictHostKeyChecking=no -n build@localhost sudo apk add -U jq";
            let (request, stdin) = parse(&words(line)).unwrap();
            let command = "sudo apk add -U jq".to_owned();
            assert_eq!(
                request,
                Request::Ssh {
                    port: 8022,
                    command
                }
            );
            assert!(!stdin);
        }

        #[test]
        fn what_makes_no_sense_is_a_sentence() {
            for line in [
                "",
                "ssh",
                "ssh -p",
                "ssh -p x build@localhost ls",
                "boot x86_64",
                "wait x",
            ] {
                assert!(parse(&words(line)).is_err(), "{line}");
            }
        }
    }
}
