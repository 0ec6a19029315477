//! The side that workers talk to.

use axum::Router;

use crate::state::Shared;

/// Its routes.
pub(crate) fn router() -> Router<Shared> {
    Router::new()
}
