//! How the server is.

use kiln_store::{StoreError, model::Counts};

use crate::state::State;

/// What is missing for requests to be served now, a sentence each. What exactly failed is
/// for the operator, in the server's own log.
pub(crate) async fn missing(state: &State) -> Vec<&'static str> {
    let mut missing = Vec::new();
    if let Err(error) = state.store.ping().await {
        tracing::warn!("not ready: {error}");
        missing.push("the database does not answer");
    }
    if let Err(error) = state.objects.check().await {
        tracing::warn!("not ready: logs and artifacts can't be written: {error}");
        missing.push("the place of logs and artifacts can't be written");
    }
    if *state.stopping.borrow() {
        missing.push("the server is ending");
    }
    missing
}

/// How much there is of everything.
///
/// # Errors
/// When the database fails.
pub(crate) async fn counts(state: &State) -> Result<Counts, StoreError> {
    state.store.counts().await
}
