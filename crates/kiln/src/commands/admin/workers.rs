//! `kiln admin worker`.

use kiln_core::farm::limits;
use kiln_store::{Store, token};

use super::{date, done, failed};
use crate::{
    cli::farm::WorkerCommand,
    exit::{Exit, Failure},
    ui,
};

/// What the worker inside `kiln serve` is called.
pub const INSIDE: &str = "local";

/// Runs the command.
pub async fn run(store: &Store, command: &WorkerCommand) -> Result<Exit, Failure> {
    match command {
        WorkerCommand::Add { name } => add(store, name).await,
        WorkerCommand::List => list(store).await,
        WorkerCommand::Revoke { name } if name == INSIDE => Err(Failure::usage(format!(
            "`{INSIDE}` is the worker inside `kiln serve`; `kiln serve --no-worker` runs none, `kiln admin worker pause {INSIDE}` gives it no jobs"
        ))),
        WorkerCommand::Revoke { name } => done(
            store.revoke_worker(name).await.map_err(failed)?,
            "worker",
            name,
        ),
        WorkerCommand::Pause { name, reason } => {
            let found = store
                .pause_worker(name, Some(reason))
                .await
                .map_err(failed)?;
            done(found, "worker", name)
        }
        WorkerCommand::Resume { name } => {
            let found = store.pause_worker(name, None).await.map_err(failed)?;
            done(found, "worker", name)
        }
    }
}

async fn add(store: &Store, name: &str) -> Result<Exit, Failure> {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let right = (1..=limits::LABEL).contains(&name.len()) && name.bytes().all(letters);
    if !right || name == INSIDE {
        return Err(Failure::usage(match name {
            INSIDE => format!("`{INSIDE}` is the worker inside `kiln serve`"),
            _ => format!(
                "`{name}` can't be a worker's name; use 1 to {} letters, digits and . _ -",
                limits::LABEL
            ),
        }));
    }
    let (token, hash) = token::make(token::Kind::Worker).map_err(Failure::host)?;
    let worker = store.add_worker(name, hash).await.map_err(failed)?;
    ui::note(&format!(
        "put the token of {} into a file that only `kiln worker --token-file` reads; it is shown once, here:",
        worker.name
    ));
    ui::line(&token);
    Ok(Exit::Success)
}

async fn list(store: &Store) -> Result<Exit, Failure> {
    let sessions = store.sessions().await.map_err(failed)?;
    for worker in store.workers().await.map_err(failed)? {
        let here = sessions
            .iter()
            .filter(|session| session.worker == worker.id)
            .count();
        let state = match (worker.revoked, &worker.paused, here) {
            (true, ..) => "revoked".to_owned(),
            (_, Some(why), _) => format!("paused: {why}"),
            (_, None, 0) => "not here".to_owned(),
            (_, None, _) => "here".to_owned(),
        };
        ui::line(&format!(
            "{:<20} {}  {state}",
            worker.name,
            date(worker.created)
        ));
    }
    Ok(Exit::Success)
}
