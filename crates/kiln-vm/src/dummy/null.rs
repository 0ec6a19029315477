//! A guest that is none: whatever it is told is done, at once. What is left of a job's time
//! on it is the farm's own.

use async_trait::async_trait;
use tokio::{net::TcpStream, sync::watch};

use crate::machine::{Exec, ExitCode, Gone, Guest, GuestError, Login, Sink};

pub(super) struct NullGuest {
    login: Login,
    gone: watch::Sender<bool>,
}

impl NullGuest {
    pub(super) fn new(login: Login) -> Self {
        Self {
            login,
            gone: watch::Sender::new(false),
        }
    }

    fn done(&self) -> Result<ExitCode, GuestError> {
        match *self.gone.borrow() {
            true => Err(Gone::Stopped.into()),
            false => Ok(ExitCode(0)),
        }
    }
}

#[async_trait]
impl Guest for NullGuest {
    async fn exec(&self, _: Exec<'_>, _: &mut dyn Sink) -> Result<ExitCode, GuestError> {
        self.done()
    }

    async fn add_repository(
        &self,
        _: &str,
        _: &str,
        _: &mut dyn Sink,
    ) -> Result<ExitCode, GuestError> {
        self.done()
    }

    async fn install(&self, _: &[String], _: &mut dyn Sink) -> Result<ExitCode, GuestError> {
        self.done()
    }

    async fn fresh_login(&self) -> Result<(), GuestError> {
        self.done().map(drop)
    }

    async fn dial(&self) -> Result<TcpStream, GuestError> {
        Err(GuestError::Login)
    }

    async fn gone(&self) -> Gone {
        // The sender lives as long as this does.
        let _ = self.gone.subscribe().wait_for(|gone| *gone).await;
        Gone::Stopped
    }

    fn login(&self) -> &Login {
        &self.login
    }

    async fn stop(&self) {
        self.gone.send_replace(true);
    }
}
