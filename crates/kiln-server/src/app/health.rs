//! How the server is.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use kiln_store::{StoreError, model::Counts};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::state::{Shared, State};

/// How long each thing may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long what was seen is told, so that asking costs nothing.
const FRESH: Duration = Duration::from_secs(1);

/// What somebody saw who looked last. Who asks meanwhile waits for that look.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<Option<(Instant, Seen)>>);

/// What is not as it should be, a sentence each. What exactly failed is for the operator, in
/// the server's own log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Without this no request is served.
    pub(crate) missing: Vec<&'static str>,
    /// Without this most are. All servers of a farm miss it at once, so a proxy that sent nobody
    /// to a server which does would send nobody anywhere.
    pub(crate) warnings: Vec<&'static str>,
}

/// What is not as it should be now.
pub(crate) async fn look(state: &Shared) -> Seen {
    let looking = Arc::clone(state);
    // Who asked may have gone before there is an answer: it is kept for who asks next.
    let looked = tokio::spawn(async move { looking.health.seen(&looking).await });
    let mut seen = looked.await.unwrap_or_default();
    if state.leaving.load(Ordering::Acquire) || *state.stopping.borrow() {
        seen.missing.push("the server is ending");
    }
    if let kiln_bus::Status::Away(_) = state.hints.bus().status() {
        let late = "the bus does not answer: hints to other servers come a second late";
        seen.warnings.push(late);
    }
    seen
}

impl Health {
    async fn seen(&self, state: &State) -> Seen {
        let mut seen = self.0.lock().await;
        if let Some((at, seen)) = &*seen
            && at.elapsed() < FRESH
        {
            return seen.clone();
        }
        let (database, objects) = tokio::join!(
            within(state.store.ping(), "the database does not answer"),
            within(
                state.objects.check(),
                "the place of logs and artifacts can't be written",
            ),
        );
        let now = Seen {
            missing: database.into_iter().collect(),
            warnings: objects.into_iter().collect(),
        };
        *seen = Some((Instant::now(), now.clone()));
        now
    }
}

/// The sentence, unless that is well.
async fn within<E: fmt::Display>(
    look: impl Future<Output = Result<(), E>>,
    sentence: &'static str,
) -> Option<&'static str> {
    let wrong = match timeout(PATIENCE, look).await {
        Ok(Ok(())) => return None,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
    };
    tracing::warn!("{sentence}: {wrong}");
    Some(sentence)
}

/// How much there is of everything.
///
/// # Errors
/// When the database fails.
pub(crate) async fn counts(state: &State) -> Result<Counts, StoreError> {
    state.store.counts().await
}
