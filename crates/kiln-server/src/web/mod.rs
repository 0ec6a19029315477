//! Logs, artifacts and pages.

use axum::Router;

use crate::state::Shared;

/// Its routes.
pub(crate) fn router() -> Router<Shared> {
    Router::new()
}
