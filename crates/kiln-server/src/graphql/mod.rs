//! The builds.sr.ht API, and ours beside it.

use axum::Router;

use crate::state::Shared;

/// `/query` and `/graphql`.
pub(crate) fn router(_state: &Shared) -> Router {
    Router::new()
}
