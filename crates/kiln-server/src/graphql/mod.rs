//! The builds.sr.ht API, and ours beside it.

use axum::Router;

use crate::state::Shared;

/// Its routes.
pub(crate) fn router() -> Router<Shared> {
    Router::new()
}
