//! Why a use case was not done: one enum for HTTP and GraphQL.

use std::io::ErrorKind;

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use kiln_core::farm::Access;
use kiln_store::StoreError;
use serde_json::{Value, json};

/// Why a use case was not done. The text is for the client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No token, or one that nobody may use.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The token may not do that.
    #[error(
        "this token was not granted {0}; the farm's operator makes one that was: kiln admin token NAME --grants \"{0}\""
    )]
    MissingScope(Access),
    /// The token may not do that, whatever it was granted.
    #[error("{0}")]
    Forbidden(&'static str),
    /// There is none, or it is not for this actor: which of the two is not told.
    #[error("there is no such {0}, or you may not do that with it")]
    Hidden(&'static str),
    /// What was sent is wrong.
    #[error("{message}")]
    Invalid {
        /// A sentence with the remedy.
        message: String,
        /// For programs.
        details: Value,
    },
    /// It is in a state that forbids this.
    #[error("{0}")]
    Conflict(String),
    /// This farm can't do that yet.
    #[error("{0}")]
    NotYet(&'static str),
    /// The storage has lost it: trying again is of no use.
    #[error("{0}")]
    Gone(&'static str),
    /// The farm's own fault. The log tells more.
    #[error("the farm's storage does not answer; try again in a moment")]
    Unavailable,
}

impl Error {
    /// What was sent is wrong: a sentence with the remedy.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid {
            message: message.into(),
            details: Value::Null,
        }
    }

    /// Bytes of a log can't be read. Whoever kept them may have lost them, or others may be there
    /// in their place.
    pub(crate) fn of_log(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
                tracing::error!("what was stored of a log can't be read any more: {error}");
                Self::Gone(
                    "the farm's storage has lost what comes here in this log, or has other bytes in its place; its operator finds out more with kiln admin check",
                )
            }
            _ => error.into(),
        }
    }

    /// The name of it for programs: `extensions.code`.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) => "UNAUTHENTICATED",
            Self::MissingScope(_) | Self::Forbidden(_) => "FORBIDDEN",
            Self::Hidden(_) => "NOT_FOUND",
            Self::Invalid { .. } => "BAD_INPUT",
            Self::Conflict(_) => "CONFLICT",
            Self::NotYet(_) => "NOT_SUPPORTED",
            Self::Gone(_) => "GONE",
            Self::Unavailable => "UNAVAILABLE",
        }
    }

    /// The status of the answer that tells of it.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::MissingScope(_) | Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Hidden(_) => StatusCode::NOT_FOUND,
            Self::Invalid { .. } | Self::NotYet(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Gone(_) => StatusCode::GONE,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What programs may want besides: `extensions.details`.
    pub(crate) fn details(&self) -> Value {
        match self {
            Self::Invalid { details, .. } => details.clone(),
            Self::MissingScope(access) => json!({ "missing": access.to_string() }),
            _ => Value::Null,
        }
    }
}

/// Tells the operator that something failed; at debug only where the one reason is that the
/// database is away, which the store tells once.
macro_rules! failed {
    ($error:expr, $($said:tt)+) => {
        if kiln_store::is_away($error) {
            tracing::debug!($($said)+);
        } else {
            tracing::warn!($($said)+);
        }
    };
}
pub(crate) use failed;

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(what) => Self::Hidden(what),
            StoreError::Conflict(message) => Self::Conflict(message),
            StoreError::LeaseLost => Self::Conflict(error.to_string()),
            StoreError::Unavailable(_) => {
                failed!(&error, "{error}");
                Self::Unavailable
            }
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(source: std::io::Error) -> Self {
        failed!(
            &source,
            "the storage of logs and artifacts failed: {source}"
        );
        Self::Unavailable
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let body = json!({ "errors": [{
            "message": self.to_string(),
            "extensions": { "code": self.code(), "details": self.details() },
        }] });
        let mut response = (self.status(), Json(body)).into_response();
        if matches!(self, Self::Unauthenticated(_)) {
            let challenge = header::HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
