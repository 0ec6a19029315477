//! The side that workers talk to: their WebSocket, and reports under leases.
//! What is said is in `kiln_wire`; here it is checked and handed to `app`.

mod caller;
mod connect;
mod hello;
mod refusal;
mod reports;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post, put},
};
use kiln_wire::message::CONNECT_PATH;

use crate::state::Shared;

/// The longest report that is no append and no artifact: an end with all its tasks.
const REPORT: usize = 1 << 20;

/// Its routes.
pub(crate) fn router() -> Router<Shared> {
    let reports = Router::new()
        .route("/begun", post(reports::begun))
        .route("/event", post(reports::event))
        .route("/log", put(reports::log))
        .route("/artifact", put(reports::artifact))
        .route("/end", post(reports::end))
        .route("/return", post(reports::give_back))
        .layer(DefaultBodyLimit::max(REPORT));
    Router::new()
        .route(CONNECT_PATH, get(connect::connect))
        .nest("/worker/lease/{fence}", reports)
}
