//! Logs, artifacts and pages.

use axum::Router;

use crate::state::Shared;

/// `/query/log/…`, `/artifacts/…` and `/~user/job/…`.
pub(crate) fn router(_state: &Shared) -> Router {
    Router::new()
}
