//! Answers with bytes of somebody's job: no browser may take them for ours.

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header, response::Builder},
    response::{IntoResponse, Response},
};

use crate::app::{Error, Result};

/// What keeps a browser from running what a job wrote.
const SANDBOX: &str = "sandbox; default-src 'none'";

/// An answer of what jobs wrote.
pub(super) fn foreign(status: StatusCode, kind: &str) -> Builder {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, kind)
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::CONTENT_SECURITY_POLICY, SANDBOX)
        .header("cross-origin-resource-policy", "same-origin")
        .header(header::CACHE_CONTROL, "private, no-cache")
}

/// The answer, with its body. Names that no header may have are the only way to fail.
pub(super) fn with(builder: Builder, body: Body) -> Response {
    let wrong = |_| Error::invalid("this can't be answered").into_response();
    builder.body(body).unwrap_or_else(wrong)
}

/// The `Range` header, unless a condition comes with it that we can't judge.
pub(super) fn range(headers: &HeaderMap) -> Option<&str> {
    if headers.contains_key(header::IF_RANGE) {
        return None;
    }
    headers.get(header::RANGE)?.to_str().ok()
}

/// A number in a path; what is none names nothing.
pub(super) fn number(text: &str, what: &'static str) -> Result<i32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.ok_or(Error::Hidden(what))
}
