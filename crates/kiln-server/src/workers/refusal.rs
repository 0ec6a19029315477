//! Why something is not taken, as HTTP.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use kiln_wire::report::Refusal;

use crate::app::{failed, leases::ReportError};

/// Why a worker's request is refused.
#[derive(Debug)]
pub(super) enum Refused {
    /// No worker's token.
    Unauthorized,
    /// The report.
    Report(ReportError),
}

impl Refused {
    pub(super) fn invalid(text: impl Into<String>) -> Self {
        Self::Report(ReportError::Invalid(text.into()))
    }
}

impl<E: Into<ReportError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Report(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let error = match self {
            Self::Unauthorized => {
                let text = "this needs `Authorization: Bearer` with a worker's token; \
                            `kiln admin worker add NAME` makes one";
                return answer(
                    StatusCode::UNAUTHORIZED,
                    "unauthorized",
                    text.to_owned(),
                    None,
                );
            }
            Self::Report(error) => error,
        };
        if let ReportError::Unavailable(cause) = &error {
            failed!(cause.as_ref(), "a report can't be taken: {cause:#}");
        }
        let text = error.to_string();
        let (status, name, stored) = match error {
            ReportError::LeaseLost => (StatusCode::CONFLICT, "lease-lost", None),
            ReportError::Offset { stored } => (StatusCode::CONFLICT, "offset", Some(stored)),
            ReportError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid", None),
            ReportError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", None),
            ReportError::Slow(_) => (StatusCode::REQUEST_TIMEOUT, "slow", None),
            ReportError::StorageFull => (StatusCode::INSUFFICIENT_STORAGE, "storage-full", None),
            ReportError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", None),
        };
        answer(status, name, text, stored)
    }
}

fn answer(status: StatusCode, error: &str, message: String, stored: Option<u64>) -> Response {
    let refusal = Refusal {
        error: error.to_owned(),
        message,
        stored,
    };
    (status, Json(refusal)).into_response()
}
