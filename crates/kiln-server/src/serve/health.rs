//! `/healthz`, `/readyz` and `/metrics`: for those who operate the farm.

use axum::{Router, extract, routing::get};
use http::{StatusCode, header};

use crate::{
    app::{failed, health},
    state::Shared,
};

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// Whether requests can be served now; what is missing, a line each.
async fn ready(extract::State(state): extract::State<Shared>) -> (StatusCode, String) {
    let seen = health::look(&state).await;
    let (status, ready) = match seen.missing.is_empty() {
        true => (StatusCode::OK, Some("ready\n".to_owned())),
        false => (StatusCode::SERVICE_UNAVAILABLE, None),
    };
    let missing = seen.missing.iter().map(|what| format!("{what}\n"));
    let warnings = seen.warnings.iter();
    let warnings = warnings.map(|what| format!("warning: {what}\n"));
    (
        status,
        ready.into_iter().chain(missing).chain(warnings).collect(),
    )
}

async fn metrics(
    extract::State(state): extract::State<Shared>,
) -> Result<([(header::HeaderName, &'static str); 1], String), (StatusCode, &'static str)> {
    let none = |error: &(dyn std::error::Error + 'static)| {
        failed!(error, "no metrics: {error}");
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the database does not answer\n",
        )
    };
    let counts = health::counts(&state).await.map_err(|error| none(&error))?;
    let text = state.metrics.text(&counts).map_err(|error| none(&error))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text))
}
