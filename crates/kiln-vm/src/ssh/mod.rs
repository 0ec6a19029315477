//! The SSH session into a guest.
//!
//! Everything that comes over it is hostile. A [`Session`] is one
//! authenticated connection; each command is a channel of it ([`Session::exec`]).
//! Host keys are not checked: the way to the guest is a descriptor of ours,
//! and nobody else is on it.

mod channel;
mod door;
mod handler;
#[cfg(test)]
mod hostile;
pub(crate) mod marker;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use russh::{
    Disconnect,
    client::{self, AuthResult, Handle, KeyboardInteractiveAuthResponse},
};
use tokio::{net::TcpStream, time::timeout};

use crate::machine::{Bounded, Exec, ExitCode, GuestError, Sink};
use handler::Deaf;

pub use channel::{Piped, PipedInput, PipedOutput};
pub use door::Door;

/// Connects to a [`Door`]'s socket.
///
/// # Errors
/// When nobody listens there.
pub fn connect_private(path: &std::path::Path) -> std::io::Result<tokio::net::UnixStream> {
    crate::socket::connect(path)
}

/// The user of every image (images.md: "What a guest must be").
pub const USER: &str = "build";

/// A handshake and a login; under emulation on a busy host some ten seconds.
const LOGIN_DEADLINE: Duration = Duration::from_mins(1);
/// A new channel on a session that lives.
const CHANNEL_DEADLINE: Duration = Duration::from_secs(30);
/// Questions of keyboard-interactive before we call it nonsense.
const MAX_QUESTIONS: usize = 4;

/// What a login depends on and a job may change: groups, shell, limits,
/// environment. Printed as one line; a fresh login is due when it differs.
const FINGERPRINT: &str = r#"u=$(id -un); { id "$u"; getent passwd "$u"; cat /etc/environment /etc/security/limits.conf /etc/security/limits.d/* /etc/security/pam_env.conf /etc/pam.d/* /etc/login.defs ~/.pam_environment ~/.ssh/environment; } 2>/dev/null | cksum"#;

/// A checksum and a length; a job may have replaced the program.
const MAX_FINGERPRINT: usize = 256;

/// One authenticated connection.
pub struct Session {
    handle: Handle<Deaf>,
    /// What [`FINGERPRINT`] said when this session logged in.
    fingerprint: tokio::sync::OnceCell<Vec<u8>>,
}

/// Opens connections to a guest's SSH server.
#[async_trait]
pub trait Dial: Send + Sync {
    /// A new one; none when the guest is gone.
    async fn dial(&self) -> Option<TcpStream>;
}

/// Why nobody could log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The stream ended, or nothing came in time.
    #[error("its SSH server closes the connection or never finishes the handshake")]
    Handshake,
    /// Not SSH.
    #[error("its SSH server speaks no sense")]
    Protocol,
    /// No way of logging in without a secret.
    #[error("its user `build` may not log in with an empty password")]
    Refused,
}

impl Session {
    /// Logs in over this stream.
    ///
    /// # Errors
    /// [`LoginError`], after a minute at most.
    pub async fn login(stream: TcpStream) -> Result<Self, LoginError> {
        let config = client::Config {
            nodelay: true,
            ..client::Config::default()
        };
        let login = async {
            let mut handle = client::connect_stream(Arc::new(config), stream, Deaf)
                .await
                .map_err(|error| handshake_error(&error))?;
            if authenticate(&mut handle).await? {
                Ok(handle)
            } else {
                Err(LoginError::Refused)
            }
        };
        let handle = timeout(LOGIN_DEADLINE, login)
            .await
            .map_err(|_| LoginError::Handshake)??;
        Ok(Self {
            handle,
            fingerprint: tokio::sync::OnceCell::new(),
        })
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// As [`crate::machine::Guest::exec`].
    ///
    /// # Errors
    /// [`GuestError::Connection`] and [`GuestError::Output`].
    pub async fn exec(
        &self,
        exec: Exec<'_>,
        output: &mut dyn Sink,
    ) -> Result<ExitCode, GuestError> {
        channel::run(self.open().await?, exec, output).await
    }

    /// Runs a command with its three streams apart, for `guest_ssh`.
    ///
    /// # Errors
    /// [`GuestError::Connection`].
    pub async fn pipe(&self, command: &str) -> Result<Piped, GuestError> {
        Piped::start(self.open().await?, command).await
    }

    /// Notes what this login depends on, once. Wants to be called soon after
    /// the login.
    ///
    /// # Errors
    /// As [`Session::exec`].
    pub async fn remember_login(&self) -> Result<&[u8], GuestError> {
        self.fingerprint
            .get_or_try_init(|| self.read_fingerprint())
            .await
            .map(Vec::as_slice)
    }

    /// Whether a login now would be the same as this one was.
    ///
    /// # Errors
    /// As [`Session::exec`].
    pub async fn is_fresh(&self) -> Result<bool, GuestError> {
        let then = self.remember_login().await?;
        Ok(self.read_fingerprint().await? == then)
    }

    async fn read_fingerprint(&self) -> Result<Vec<u8>, GuestError> {
        let mut line = Bounded::new(MAX_FINGERPRINT);
        self.exec(Exec::new(FINGERPRINT), &mut line).await?;
        Ok(line.bytes)
    }

    /// Says goodbye.
    pub async fn close(&self) {
        let goodbye = self.handle.disconnect(Disconnect::ByApplication, "", "");
        let _ = timeout(Duration::from_secs(1), goodbye).await;
    }

    async fn open(&self) -> Result<russh::Channel<client::Msg>, GuestError> {
        match timeout(CHANNEL_DEADLINE, self.handle.channel_open_session()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no new channel");
                Err(GuestError::Connection)
            }
            Err(_) => Err(GuestError::Connection),
        }
    }
}

fn handshake_error(error: &russh::Error) -> LoginError {
    tracing::debug!(?error, "SSH handshake");
    match error {
        russh::Error::IO(_)
        | russh::Error::Disconnect
        | russh::Error::HUP
        | russh::Error::ConnectionTimeout => LoginError::Handshake,
        _ => LoginError::Protocol,
    }
}

/// Tries what an empty password may be called: no authentication at all, a
/// password, a question and its answer.
async fn authenticate(handle: &mut Handle<Deaf>) -> Result<bool, LoginError> {
    let none = handle.authenticate_none(USER).await;
    if succeeded(&none)? {
        return Ok(true);
    }
    let password = handle.authenticate_password(USER, "").await;
    if succeeded(&password)? {
        return Ok(true);
    }
    let mut answer = handle
        .authenticate_keyboard_interactive_start(USER, None)
        .await;
    for _ in 0..MAX_QUESTIONS {
        match answer {
            Ok(KeyboardInteractiveAuthResponse::Success) => return Ok(true),
            Ok(KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. }) => {
                let empty = vec![String::new(); prompts.len().min(MAX_QUESTIONS)];
                answer = handle
                    .authenticate_keyboard_interactive_respond(empty)
                    .await;
            }
            Ok(KeyboardInteractiveAuthResponse::Failure { .. }) => return Ok(false),
            Err(error) => return Err(handshake_error(&error)),
        }
    }
    Ok(false)
}

fn succeeded(result: &Result<AuthResult, russh::Error>) -> Result<bool, LoginError> {
    match result {
        Ok(result) => Ok(result.success()),
        Err(error) => Err(handshake_error(error)),
    }
}
