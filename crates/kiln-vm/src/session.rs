//! The way into a guest: SSH, or kiln's helper in it.
//!
//! Both run commands as the image's user. [`crate::ssh`] works with every
//! image; [`crate::agent`] is for guests that start from a template whose
//! image has the helper, and costs a hundredth.

use crate::{
    agent::{self, Agent},
    machine::{Exec, ExitCode, GuestError, Put, Sink},
    put, ssh,
};

/// A way into a guest.
pub enum Session {
    /// A connection to its SSH server.
    Ssh(ssh::Session),
    /// Its helper.
    Agent(Agent),
}

/// What a command says whose streams are apart.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// Standard output.
    Out(Vec<u8>),
    /// Standard error.
    Err(Vec<u8>),
    /// The end.
    Exit(ExitCode),
}

impl Session {
    /// Whether nothing more can be run.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Ssh(session) => session.is_closed(),
            Self::Agent(agent) => agent.is_closed(),
        }
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
        match self {
            Self::Ssh(session) => session.exec(exec, output).await,
            Self::Agent(agent) => agent.exec(exec, output).await,
        }
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
        match self {
            Self::Ssh(session) => {
                let script = put::script(files);
                let exec = Exec::with_stdin(put::FROM_STDIN, script.as_bytes());
                let code = session.exec(exec, output).await?;
                Ok(put::failed(code, files.len()))
            }
            Self::Agent(agent) => agent.put(files, output).await,
        }
    }

    /// Runs a command with its three streams apart, for `guest_ssh`.
    ///
    /// # Errors
    /// [`GuestError::Connection`].
    pub async fn pipe(&self, command: &str) -> Result<(Output, Input), GuestError> {
        match self {
            Self::Ssh(session) => {
                let (output, input) = session.pipe(command).await?.split();
                Ok((Output::Ssh(output), Input::Ssh(input)))
            }
            Self::Agent(agent) => {
                let (output, input) = agent.pipe(command).await?;
                Ok((Output::Agent(output), Input::Agent(input)))
            }
        }
    }

    /// Notes what a login depends on, once. Wants to be called soon after the
    /// login.
    ///
    /// # Errors
    /// As [`Session::exec`].
    pub async fn remember_login(&self) -> Result<(), GuestError> {
        match self {
            Self::Ssh(session) => session.remember_login().await.map(drop),
            // The template has it.
            Self::Agent(_) => Ok(()),
        }
    }

    /// Whether a login now would be the same as this one was.
    ///
    /// # Errors
    /// As [`Session::exec`].
    pub async fn is_fresh(&self) -> Result<bool, GuestError> {
        match self {
            Self::Ssh(session) => session.is_fresh().await,
            Self::Agent(agent) => agent.is_fresh().await,
        }
    }
}

/// What a command with its streams apart says.
pub enum Output {
    /// From a channel.
    Ssh(ssh::PipedOutput),
    /// From the helper.
    Agent(agent::Output),
}

impl Output {
    /// The next piece. [`Said::Exit`] is the last one.
    ///
    /// # Errors
    /// [`GuestError::Connection`] when the way into the guest is lost.
    pub async fn next(&mut self) -> Result<Said, GuestError> {
        match self {
            Self::Ssh(output) => output.next().await,
            Self::Agent(output) => output.next().await,
        }
    }
}

/// What it is given.
pub enum Input {
    /// To a channel.
    Ssh(ssh::PipedInput),
    /// To the helper.
    Agent(agent::Input),
}

impl Input {
    /// Gives it these bytes.
    ///
    /// # Errors
    /// [`GuestError::Connection`] when it reads no more.
    pub async fn write(&self, bytes: &[u8]) -> Result<(), GuestError> {
        match self {
            Self::Ssh(input) => input.write(bytes).await,
            Self::Agent(input) => input.write(bytes).await,
        }
    }

    /// Ends its input.
    ///
    /// # Errors
    /// [`GuestError::Connection`] when it has ended.
    pub async fn end(&self) -> Result<(), GuestError> {
        match self {
            Self::Ssh(input) => input.end().await,
            Self::Agent(input) => input.end().await,
        }
    }
}
