//! Reports under a lease: see `kiln_wire::report`.

use std::{io, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{
        FromRequest, Query, Request, State,
        rejection::{JsonRejection, QueryRejection},
    },
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::TryStreamExt;
use http::StatusCode;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as HttpBody;
use kiln_core::farm::limits;
use kiln_store::model::NewArtifact;
use kiln_wire::report::{End, Event, Return, Stored};
use serde::Deserialize;
use tokio_util::io::StreamReader;

use super::{caller::Holder, refusal::Refused};
use crate::{
    app::leases::{self, ReportError},
    state::Shared,
};

/// How long all of an append may take to come.
const APPEND_TIME: Duration = Duration::from_secs(60);

/// How long the rest of an artifact may go on coming that is not wanted any more.
const LINGER: Duration = Duration::from_secs(30);

type Done = Result<StatusCode, Refused>;

const DONE: StatusCode = StatusCode::NO_CONTENT;

/// A body in JSON, or a refusal in JSON.
pub(super) struct Words<T>(T);

impl<T, S> FromRequest<S> for Words<T>
where
    Json<T>: FromRequest<S, Rejection = JsonRejection>,
    S: Send + Sync,
{
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        match Json::from_request(request, state).await {
            Ok(Json(words)) => Ok(Self(words)),
            Err(wrong) if wrong.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(ReportError::TooLarge("this report is too long".to_owned()).into())
            }
            Err(wrong) => Err(Refused::invalid(wrong.body_text())),
        }
    }
}

pub(super) async fn begun(State(state): State<Shared>, holder: Holder) -> Done {
    leases::begun(&state, holder.key()).await?;
    Ok(DONE)
}

pub(super) async fn event(
    State(state): State<Shared>,
    holder: Holder,
    Words(event): Words<Event>,
) -> Result<Response, Refused> {
    let stored = leases::event(&state, holder.key(), event).await?;
    Ok(match stored {
        Some(stored) => Json(Stored { stored }).into_response(),
        None => DONE.into_response(),
    })
}

pub(super) async fn end(
    State(state): State<Shared>,
    holder: Holder,
    Words(end): Words<End>,
) -> Done {
    leases::end(&state, holder.key(), end).await?;
    Ok(DONE)
}

pub(super) async fn give_back(
    State(state): State<Shared>,
    holder: Holder,
    Words(back): Words<Return>,
) -> Done {
    leases::give_back(&state, holder.key(), back).await?;
    Ok(DONE)
}

/// Where bytes of a log belong.
#[derive(Debug, Deserialize)]
pub(super) struct Place {
    offset: u64,
    task: Option<String>,
}

pub(super) async fn log(
    State(state): State<Shared>,
    holder: Holder,
    place: Result<Query<Place>, QueryRejection>,
    body: Body,
) -> Result<Json<Stored>, Refused> {
    let place = words(place)?;
    let length = HttpBody::size_hint(&body).upper().unwrap_or(u64::MAX);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let room = leases::room(&state, length.min(limits::APPEND)).await?;
    let bytes = room.with(whole(body).await?);
    let append = leases::append(&state, holder.key(), place.task, place.offset, bytes);
    let stored = append.await?;
    Ok(Json(Stored { stored }))
}

/// An append's bytes.
async fn whole(body: Body) -> Result<Bytes, Refused> {
    let limited = Limited::new(body, limits::APPEND).collect();
    let came = tokio::time::timeout(APPEND_TIME, limited).await;
    let slow = |text: String| Refused::from(ReportError::Slow(text));
    let came = came.map_err(|_| slow("the append took too long to come".to_owned()))?;
    match came {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let text = format!("an append has at most {} bytes", limits::APPEND);
            Err(ReportError::TooLarge(text).into())
        }
        Err(error) => Err(slow(format!("the append broke off: {error}"))),
    }
}

/// What an artifact is said to be.
#[derive(Debug, Deserialize)]
pub(super) struct Said {
    index: u32,
    path: String,
    size: u64,
    sha256: String,
}

pub(super) async fn artifact(
    State(state): State<Shared>,
    holder: Holder,
    said: Result<Query<Said>, QueryRejection>,
    body: Body,
) -> Done {
    let said = words(said)?;
    let artifact = NewArtifact {
        index: said.index,
        path: said.path,
        size: said.size,
        sha256: said.sha256,
    };
    let stream = TryStreamExt::map_err(body.into_data_stream(), io::Error::other);
    let mut reader = StreamReader::new(stream);
    let kept = leases::artifact(&state, holder.key(), &artifact, &mut reader).await;
    // Whoever still sends hears the answer only if somebody listens meanwhile.
    tokio::spawn(tokio::time::timeout(LINGER, async move {
        tokio::io::copy(&mut reader, &mut tokio::io::sink()).await
    }));
    kept?;
    Ok(DONE)
}

fn words<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Refused> {
    match query {
        Ok(Query(words)) => Ok(words),
        Err(wrong) => Err(Refused::invalid(wrong.body_text())),
    }
}
