//! Logs, artifacts and pages.

mod answer;
mod artifacts;
mod lines;
mod logs;
mod page;
mod range;

use axum::{Router, http::StatusCode, response::IntoResponse, routing::get};

use crate::{app::Error, state::Shared};

/// `/query/log/…`, `/artifacts/…` and `/~user/job/…`.
pub(crate) fn router(state: &Shared) -> Router {
    Router::new()
        .route("/query/log/{job}/log", get(logs::of_job))
        .route("/query/log/{job}/{task}/log", get(logs::of_task))
        .route("/artifacts/{id}/{name}", get(artifacts::download))
        .route("/{user}/job/{job}", get(page::show))
        .route("/{user}/job/{job}/log", get(page::job_log))
        .route("/{user}/job/{job}/log/{task}", get(page::task_log))
        .method_not_allowed_fallback(only_get)
        .with_state(state.clone())
}

async fn only_get() -> impl IntoResponse {
    let error = Error::invalid("this is read by GET or HEAD only");
    (StatusCode::METHOD_NOT_ALLOWED, error.into_response())
}
