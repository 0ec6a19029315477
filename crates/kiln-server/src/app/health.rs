//! How the server is.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use kiln_store::{StoreError, model::Counts};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::failed;
use crate::state::{Shared, State};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the two are that are looked at.
const DATABASE: &str = "the database does not answer";
const OBJECTS: &str = "the place of logs and artifacts can't be written";
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
        let before = seen.take().map(|(_, seen)| seen).unwrap_or_default();
        let (database, objects) =
            tokio::join!(within(state.store.ping()), within(state.objects.check()),);
        let now = Seen {
            missing: told(&before.missing, DATABASE, database),
            warnings: told(&before.warnings, OBJECTS, objects),
        };
        *seen = Some((Instant::now(), now.clone()));
        now
    }
}

/// What a look came to.
async fn within<E: Into<BoxError>>(
    look: impl Future<Output = Result<(), E>>,
) -> Result<(), BoxError> {
    match timeout(PATIENCE, look).await {
        Ok(looked) => looked.map_err(Into::into),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs()).into()),
    }
}

/// The sentence, unless that is well. The log has a line when it begins and one when it ends.
fn told(
    before: &[&'static str],
    sentence: &'static str,
    looked: Result<(), BoxError>,
) -> Vec<&'static str> {
    let known = before.contains(&sentence);
    match looked {
        Ok(()) => {
            if known {
                tracing::info!("not any more: {sentence}");
            }
            Vec::new()
        }
        Err(error) => {
            if !known {
                failed!(error.as_ref(), "{sentence}: {error}");
            }
            vec![sentence]
        }
    }
}

/// How much there is of everything.
///
/// # Errors
/// When the database fails.
pub(crate) async fn counts(state: &State) -> Result<Counts, StoreError> {
    state.store.counts().await
}
