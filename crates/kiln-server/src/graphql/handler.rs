//! `POST /query`: from bytes to a request, and from errors to a status.
//!
//! | status | when |
//! |---|---|
//! | 401 | no token, or none that may be used; nothing of the body was read |
//! | 400, 408, 413, 415 | no GraphQL request |
//! | 403 | a grant is missing for anything that was asked |
//! | 400, 404, 409, 503 | nothing came of it, by the first error |
//! | 200 | all else; errors in `errors` |

use std::{sync::Arc, time::Duration};

use async_graphql::{
    ErrorExtensionValues, Request, Response as Answer, Value, http::MultipartOptions,
};
use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::sync::Semaphore;

use super::{Api, Asking, shape};
use crate::{
    app::{Actor, Error, submit},
    state::Shared,
};

/// A manifest of a mebibyte fits, however it is escaped in JSON.
const BODY: usize = 8 << 20;
/// A body up to here is read at once; only so many that are longer.
const SMALL: usize = 64 << 10;
/// A body comes in within this time.
const BODY_TIME: Duration = Duration::from_secs(30);
/// The header by which a submission that is sent twice is one job.
const KEY: &str = "idempotency-key";

/// What the endpoint has.
#[derive(Clone)]
pub(super) struct Handler {
    api: Api,
    state: Shared,
    /// So many long bodies are read at once: what they take of memory has a bound. Short
    /// ones wait for nobody.
    bodies: Arc<Semaphore>,
}

impl Handler {
    pub(super) fn new(api: Api, state: Shared) -> Self {
        let bodies = Arc::new(Semaphore::new(32));
        Self { api, state, bodies }
    }
}

pub(super) async fn only_post() -> Response {
    let message =
        "send GraphQL with POST and `Content-Type: application/json`; people look at /graphql";
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, message).into_response()
}

/// Why nothing was run.
enum Refused {
    /// What was sent is no request of GraphQL.
    Form(StatusCode, String),
    /// Who sent it, or its headers.
    App(Error),
}

impl Refused {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self::Form(status, message.into())
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::App(error)
    }
}

impl IntoResponse for Refused {
    /// In GraphQL's own form.
    fn into_response(self) -> Response {
        match self {
            Self::App(error) => error.into_response(),
            Self::Form(status, message) => {
                let body = json!({ "errors": [{
                    "message": message,
                    "extensions": { "code": "BAD_REQUEST" },
                }] });
                (status, Json(body)).into_response()
            }
        }
    }
}

pub(super) async fn query(
    State(handler): State<Handler>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match answer(&handler, &headers, body).await {
        Ok(answer) => told(answer),
        Err(refused) => refused.into_response(),
    }
}

async fn answer(handler: &Handler, headers: &HeaderMap, body: Body) -> Result<Answer, Refused> {
    let actor = Actor::known(&handler.state, headers).await?;
    let key = headers.get(KEY).map(|key| submit::key(key.as_bytes()));
    let key = key.transpose()?;
    let kind = content_type(headers)?;
    let request = read(&kind, body, &handler.bodies).await?;
    let document = shape::read(&request.query)
        .map_err(|message| Refused::new(StatusCode::BAD_REQUEST, message))?;
    let mut request = request.data(Asking {
        state: handler.state.clone(),
        actor,
        key,
    });
    request.set_parsed_query(document);
    Ok(handler.api.execute(request).await)
}

enum Kind {
    Json,
    Multipart(String),
}

fn content_type(headers: &HeaderMap) -> Result<Kind, Refused> {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(Kind::Json)
    } else if essence.eq_ignore_ascii_case("multipart/form-data") {
        Ok(Kind::Multipart(value.to_owned()))
    } else {
        Err(Refused::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send `Content-Type: application/json` with {\"query\": …, \"variables\": …}, or multipart/form-data",
        ))
    }
}

async fn read(kind: &Kind, body: Body, few: &Semaphore) -> Result<Request, Refused> {
    let whole = tokio::time::timeout(BODY_TIME, whole(body, few)).await;
    let bytes = whole.unwrap_or_else(|_| {
        let message = "the body did not come within 30 seconds";
        Err(Refused::new(StatusCode::REQUEST_TIMEOUT, message))
    })?;
    let read = match kind {
        Kind::Json => serde_json::from_slice::<Request>(&bytes).map_err(|error| error.to_string()),
        Kind::Multipart(kind) => {
            let files = MultipartOptions::default()
                .max_file_size(BODY)
                .max_num_files(1);
            async_graphql::http::receive_body(Some(kind), &*bytes, files)
                .await
                .map_err(|error| error.to_string())
        }
    };
    read.map_err(|error| {
        let message = format!("the body is no GraphQL request: {error}");
        Refused::new(StatusCode::BAD_REQUEST, message)
    })
}

/// A body's bytes. Who sends a long one waits until there is room for it, and is gone
/// after [`BODY_TIME`]; nobody else waits for that.
async fn whole(mut body: Body, few: &Semaphore) -> Result<Bytes, Refused> {
    let mut bytes = BytesMut::new();
    let mut one_of_few = None;
    while let Some(frame) = body.frame().await {
        let broke_off = |_| Refused::new(StatusCode::BAD_REQUEST, "the body broke off");
        let Ok(data) = frame.map_err(broke_off)?.into_data() else {
            continue;
        };
        let length = bytes.len() + data.len();
        if length > BODY {
            let message = format!("this body has more than {BODY} bytes");
            return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        if length > SMALL && one_of_few.is_none() {
            one_of_few = few.acquire().await.ok();
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// An answer, with what programs want to know of each error.
fn told(mut answer: Answer) -> Response {
    let mut first = None;
    let mut forbidden = false;
    for error in &mut answer.errors {
        // What is not ours is the parser's and the validator's: the query is wrong.
        let (code, status, details) = match error.source::<Error>() {
            Some(error) => (error.code(), error.status(), error.details()),
            None => ("BAD_REQUEST", StatusCode::BAD_REQUEST, json!(null)),
        };
        forbidden |= status == StatusCode::FORBIDDEN;
        first.get_or_insert(status);
        let extensions = error
            .extensions
            .get_or_insert_with(ErrorExtensionValues::default);
        extensions.set("code", code);
        if !details.is_null() {
            extensions.set("details", Value::from_json(details).unwrap_or_default());
        }
    }
    let nothing = match &answer.data {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(|value| *value == Value::Null),
        _ => false,
    };
    let status = match first {
        _ if forbidden => StatusCode::FORBIDDEN,
        Some(status) if nothing => status,
        _ => StatusCode::OK,
    };
    (status, Json(answer)).into_response()
}
