//! How the server is.

use std::{fmt, sync::atomic::Ordering, time::Duration};

use kiln_store::{StoreError, model::Counts};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::state::State;

/// How long each thing may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long what was seen is told, so that asking costs nothing.
const FRESH: Duration = Duration::from_secs(1);

/// What was missing when somebody looked last. Who asks meanwhile waits for that look.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<Option<(Instant, Vec<&'static str>)>>);

/// What is missing for requests to be served now, a sentence each. What exactly failed is
/// for the operator, in the server's own log.
pub(crate) async fn missing(state: &State) -> Vec<&'static str> {
    let mut seen = state.health.0.lock().await;
    let fresh = seen.as_ref().filter(|(at, _)| at.elapsed() < FRESH);
    let mut missing = match fresh {
        Some((_, missing)) => missing.clone(),
        None => {
            let missing = look(state).await;
            *seen = Some((Instant::now(), missing.clone()));
            missing
        }
    };
    if state.leaving.load(Ordering::Acquire) || *state.stopping.borrow() {
        missing.push("the server is ending");
    }
    missing
}

async fn look(state: &State) -> Vec<&'static str> {
    let looks = [
        within(state.store.ping(), "the database does not answer"),
        within(
            state.objects.check(),
            "the place of logs and artifacts can't be written",
        ),
    ];
    let looked = futures_util::future::join_all(looks).await;
    looked.into_iter().flatten().collect()
}

/// The sentence, unless that is well.
fn within<'a, E: fmt::Display + 'a>(
    look: impl Future<Output = Result<(), E>> + Send + 'a,
    sentence: &'static str,
) -> futures_util::future::BoxFuture<'a, Option<&'static str>> {
    Box::pin(async move {
        let wrong = match timeout(PATIENCE, look).await {
            Ok(Ok(())) => return None,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        tracing::warn!("not ready: {sentence}: {wrong}");
        Some(sentence)
    })
}

/// What is not as it should be and keeps no request from being served, a sentence each.
pub(crate) fn warnings(state: &State) -> Vec<&'static str> {
    match state.hints.bus().status() {
        kiln_bus::Status::Well => Vec::new(),
        kiln_bus::Status::Away(_) => {
            vec!["the bus does not answer: hints to other servers come a second late"]
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
