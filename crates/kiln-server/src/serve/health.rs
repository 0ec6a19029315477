//! `/healthz`, `/readyz` and `/metrics`: for those who operate the farm.

use axum::{Router, extract, routing::get};
use http::{StatusCode, header};

use crate::state::Shared;

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// Whether requests can be served now; what is missing, a line each. What exactly failed
/// is for the operator, in the server's own log.
async fn ready(extract::State(state): extract::State<Shared>) -> (StatusCode, String) {
    let mut missing = String::new();
    if let Err(error) = state.store.ping().await {
        tracing::warn!("not ready: {error}");
        missing.push_str("the database does not answer\n");
    }
    if let Err(error) = state.objects.check().await {
        tracing::warn!("not ready: logs and artifacts can't be written: {error}");
        missing.push_str("the directory of logs and artifacts can't be written\n");
    }
    if *state.stopping.borrow() {
        missing.push_str("the server is ending\n");
    }
    if missing.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, missing)
    }
}

async fn metrics(
    extract::State(state): extract::State<Shared>,
) -> Result<([(header::HeaderName, &'static str); 1], String), (StatusCode, &'static str)> {
    let failed = |error: &dyn std::fmt::Display| {
        tracing::warn!("no metrics: {error}");
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the database does not answer\n",
        )
    };
    let counts = state.store.counts().await.map_err(|error| failed(&error))?;
    let text = state
        .metrics
        .text(&counts)
        .map_err(|error| failed(&error))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text))
}
