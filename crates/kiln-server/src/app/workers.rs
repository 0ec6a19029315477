//! Workers, as the farm's admins see them.

use kiln_store::model::{Session, Worker};

use super::{
    Actor, Error, Result,
    input::at_most,
    permission::{self, Deed},
};
use crate::state::State;

/// A registration, and its sessions that are here.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    /// The registration.
    pub(crate) worker: Worker,
    /// Its sessions.
    pub(crate) sessions: Vec<Session>,
}

/// All registrations that were not taken back, and who is here of them.
///
/// # Errors
/// Who is no admin, or has no grant.
pub(crate) async fn list(state: &State, actor: &Actor) -> Result<Vec<Registered>> {
    permission::may(actor, Deed::ListWorkers)?;
    let workers = state.store.workers().await?;
    let sessions = state.store.sessions().await?;
    let with_sessions = |worker: Worker| {
        let own = |session: &&Session| session.worker == worker.id;
        let sessions: Vec<_> = sessions.iter().filter(own).cloned().collect();
        (!worker.revoked || !sessions.is_empty()).then_some(Registered { worker, sessions })
    };
    Ok(workers.into_iter().filter_map(with_sessions).collect())
}

/// Gives a worker no jobs for a reason, or jobs again without one.
///
/// # Errors
/// Who is no admin, or has no grant; when there is no such worker.
pub(crate) async fn pause(
    state: &State,
    actor: &Actor,
    name: &str,
    why: Option<&str>,
) -> Result<Registered> {
    permission::may(actor, Deed::PauseWorkers)?;
    if let Some(why) = why {
        at_most("reason", why, kiln_core::farm::limits::NOTE)?;
    }
    if !state.store.pause_worker(name, why).await? {
        return Err(Error::Hidden("worker"));
    }
    state.hints.changed(&kiln_store::model::Changed {
        assign: true,
        ..Default::default()
    });
    let workers = list(state, actor).await?;
    let found = workers.into_iter().find(|known| known.worker.name == name);
    found.ok_or(Error::Hidden("worker"))
}
