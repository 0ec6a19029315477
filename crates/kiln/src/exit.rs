//! How the command ends: the exit statuses that scripts rely on.

use std::fmt;

/// An exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Success,
    /// The build failed, or a check found something.
    Failed,
    /// The manifest or the command line is wrong.
    Usage,
    /// The host or the image can't.
    Host,
    /// A farm's job was cancelled, or lost by the farm.
    Lost,
    /// Time ran out.
    Timeout,
    /// Ctrl-C, or a signal that asks to end.
    Interrupted,
    /// Another program's own status.
    Other(u8),
}

impl Exit {
    /// The number.
    pub fn status(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Host => 3,
            Self::Lost => 4,
            Self::Timeout => 124,
            Self::Interrupted => 130,
            Self::Other(status) => status,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}

/// An error with the status that it ends the command with.
#[derive(Debug)]
pub struct Failure {
    /// The status.
    pub exit: Exit,
    /// What happened and what to do.
    pub message: String,
}

impl Failure {
    /// The user's mistake.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self {
            exit: Exit::Usage,
            message: message.to_string(),
        }
    }

    /// A signal that asks to end.
    pub fn interrupted() -> Self {
        Self {
            exit: Exit::Interrupted,
            message: "interrupted".into(),
        }
    }

    /// The host's or the image's.
    pub fn host(message: impl fmt::Display) -> Self {
        Self {
            exit: Exit::Host,
            message: message.to_string(),
        }
    }
}

/// Whatever went wrong without a word of ours on it is the host's.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::host(format!("{error:#}"))
    }
}
