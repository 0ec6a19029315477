//! `kiln admin worker`.

use kiln_core::farm::limits;
use kiln_store::{Store, token};

use super::{date, done, failed};
use crate::{
    cli::farm::WorkerCommand,
    exit::{Exit, Failure},
    ui,
};

/// What the worker inside `kiln serve` is called; on PostgreSQL eight digits follow it.
pub const INSIDE: &str = "local";

/// Whether a worker inside a server is called so, here or elsewhere.
fn is_inside(name: &str) -> bool {
    let is_digest = |rest: &str| {
        let digits = rest.strip_prefix('-').unwrap_or_default();
        digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let rest = name.strip_prefix(INSIDE);
    rest.is_some_and(|rest| rest.is_empty() || is_digest(rest))
}

/// Runs the command.
pub async fn run(store: &Store, command: &WorkerCommand) -> Result<Exit, Failure> {
    match command {
        WorkerCommand::Add { name } => add(store, name).await,
        WorkerCommand::List => list(store).await,
        WorkerCommand::Revoke { name } if is_inside(name) => Err(Failure::usage(format!(
            "`{name}` is the worker inside `kiln serve`; `kiln serve --no-worker` runs none, `kiln admin worker pause {name}` gives it no jobs"
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
    if is_inside(name) {
        let text = format!("`{name}` is the worker inside `kiln serve`");
        return Err(Failure::usage(text));
    }
    if !right {
        return Err(Failure::usage(format!(
            "`{name}` can't be a worker's name; use 1 to {} letters, digits and . _ -",
            limits::LABEL
        )));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_inside_a_server_is_known_by_its_name() {
        for name in ["local", "local-1a2b3c4d"] {
            assert!(is_inside(name), "{name}");
        }
        for name in ["local-attic", "local-1a2b3c4", "locally", "attic", "local-"] {
            assert!(!is_inside(name), "{name}");
        }
    }
}
