//! `/artifacts/<id>/<name>`: what jobs made, always as a download.

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use kiln_core::farm::ArtifactId;
use tokio_util::io::ReaderStream;

use super::{
    answer,
    range::{self, Part},
};
use crate::{
    app::{Actor, Result, artifacts},
    state::Shared,
    urls,
};

const BINARY: &str = "application/octet-stream";

pub(super) async fn download(
    State(state): State<Shared>,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response> {
    let actor = Actor::of(&state, &headers).await?;
    let id = ArtifactId(answer::number(&id, "artifact")?);
    let artifact = artifacts::find(&state, &actor, id, &name).await?;
    let length = artifact.size;
    let (status, from, to) = match range::part(answer::range(&headers), length) {
        Part::Whole => (StatusCode::OK, 0, length),
        Part::Bytes(from, to) => (StatusCode::PARTIAL_CONTENT, from, to),
        Part::Beyond => {
            let builder = answer::foreign(StatusCode::RANGE_NOT_SATISFIABLE, BINARY)
                .header(header::CONTENT_RANGE, format!("bytes */{length}"));
            return Ok(answer::with(builder, Body::empty()));
        }
    };
    let mut builder = answer::foreign(status, BINARY)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_LENGTH, to - from)
        .header(header::CONTENT_DISPOSITION, disposition(&name));
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {from}-{}/{length}", to - 1);
        builder = builder.header(header::CONTENT_RANGE, range);
    }
    let reader = artifacts::read(&state, &artifact, from, to).await?;
    let body = Body::from_stream(ReaderStream::new(reader));
    Ok(answer::with(builder, body))
}

/// A download under this name (RFC 6266, RFC 8187).
fn disposition(name: &str) -> String {
    format!("attachment; filename*=UTF-8''{}", urls::escaped(name))
}
