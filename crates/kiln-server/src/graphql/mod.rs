//! The builds.sr.ht API, and ours beside it.
//!
//! Code first: the schema is what `query`, `mutation` and `model` are. Each
//! resolver calls one use case of `app`, which asks permission.

mod explorer;
mod handler;
mod model;
mod mutation;
mod query;
mod shape;

use async_graphql::{Context, EmptySubscription, SDLExportOptions, Schema};
use axum::{Router, routing::post};

use crate::{app::Actor, state::Shared};

/// The schema.
type Api = Schema<query::Query, mutation::Mutation, EmptySubscription>;

/// The most levels of a query. GraphiQL's own question has 15.
const DEPTH: usize = 20;
/// The most that a query may cost: a field costs 1, times what lists may have, and
/// more where much text comes.
const COMPLEXITY: usize = 5000;

/// `/query` and `/graphql`.
pub(crate) fn router(state: &Shared) -> Router {
    let handler = handler::Handler::new(schema(), state.clone());
    let query = post(handler::query).fallback(handler::only_post);
    Router::new()
        .route("/query", query)
        .with_state(handler)
        .merge(explorer::router())
}

fn schema() -> Api {
    Schema::build(query::Query, mutation::Mutation, EmptySubscription)
        .limit_depth(DEPTH)
        .limit_complexity(COMPLEXITY)
        .register_output_type::<model::Payload>()
        .finish()
}

/// The schema's text, as it is served and committed.
#[must_use]
pub fn sdl() -> String {
    let options = SDLExportOptions::new()
        .use_space_ident()
        .indent_width(2)
        .prefer_single_line_descriptions();
    schema().sdl_with_options(options)
}

/// Who asks, and what it needs to be answered.
pub(crate) struct Asking {
    state: Shared,
    actor: Actor,
    key: Option<String>,
}

/// What a resolver needs.
fn asking<'a>(ctx: &Context<'a>) -> async_graphql::Result<(&'a Shared, &'a Actor)> {
    let asking = ctx.data::<Asking>()?;
    Ok((&asking.state, &asking.actor))
}
