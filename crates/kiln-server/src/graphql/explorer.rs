//! `/graphql`: GraphiQL, with files of our own and of no other host.

use axum::{Router, http::header, response::IntoResponse, routing::get};

/// Nothing but our files; GraphiQL's editor sets styles on its elements.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
connect-src 'self'; font-src 'self' data:; img-src 'self' data:; base-uri 'none'; \
form-action 'none'; frame-ancestors 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PAGE: &str = "text/html; charset=utf-8";

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("../../vendor/graphiql/", $name))
    };
}

/// The page and its files.
const FILES: &[(&str, &str, &[u8])] = &[
    ("/graphql", PAGE, include_bytes!("explorer.html")),
    (
        "/graphql/explorer.js",
        SCRIPT,
        include_bytes!("explorer.js"),
    ),
    ("/graphql/graphiql.css", STYLE, file!("graphiql.min.css")),
    ("/graphql/graphiql.js", SCRIPT, file!("graphiql.min.js")),
    (
        "/graphql/react.js",
        SCRIPT,
        file!("react.production.min.js"),
    ),
    (
        "/graphql/react-dom.js",
        SCRIPT,
        file!("react-dom.production.min.js"),
    ),
];

/// Serves them.
pub(super) fn router() -> Router {
    let add = |router: Router,
               (path, kind, bytes): &(&'static str, &'static str, &'static [u8])| {
        let (kind, bytes) = (*kind, *bytes);
        router.route(path, get(async move || answer(kind, bytes)))
    };
    FILES.iter().fold(Router::new(), add)
}

fn answer(kind: &'static str, bytes: &'static [u8]) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, bytes)
}
