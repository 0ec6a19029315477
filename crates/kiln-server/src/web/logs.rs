//! `/query/log/<job>/log` and `/query/log/<job>/<task>/log`.
//!
//! | asked | answer |
//! |---|---|
//! | nothing | 200, all that there is |
//! | `Range: bytes=…` | 206, at least one byte; what begins behind the end gets the last byte, so that "no news" is never an error |
//! | `?lines=a-b` | 200, these lines |
//! | `?follow` | 200, from the range's begin on until the log is over |
//! | `?follow=early` | the same, and bytes may come before they are stored; if they are then not stored so, the answer breaks off |
//!
//! But for that only what is stored is served, and a byte once served never changes.

use std::io::Cursor;

use axum::{
    body::Body,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use bytes::BytesMut;
use futures_util::stream;
use kiln_core::farm::JobId;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use super::{
    answer,
    lines::{Cut, Lines},
    range::{self, Part},
};
use crate::{
    app::{
        Actor, Error, Result,
        logs::{self, Follower, Log},
        permission::Wish,
    },
    state::Shared,
};

/// What is read before there is an answer, at most.
const CHUNK: usize = 64 << 10;
const PLAIN: &str = "text/plain; charset=utf-8";

/// Which log, and by what right.
pub(super) struct Asked {
    pub(super) actor: Actor,
    /// The headers that the actor was known by, if it was.
    pub(super) token: Option<HeaderMap>,
    pub(super) job: JobId,
    pub(super) task: Option<String>,
    pub(super) wish: Wish,
}

pub(super) async fn of_job(
    State(state): State<Shared>,
    Path(job): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response> {
    by_token(state, &job, None, query, headers).await
}

pub(super) async fn of_task(
    State(state): State<Shared>,
    Path((job, task)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response> {
    by_token(state, &job, Some(task), query, headers).await
}

async fn by_token(
    state: Shared,
    job: &str,
    task: Option<String>,
    query: Option<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let asked = Asked {
        actor: Actor::known(&state, &headers).await?,
        token: Some(headers.clone()),
        job: JobId(answer::number(job, "job")?),
        task,
        wish: Wish::Logs,
    };
    serve(state, asked, query.as_deref(), &headers).await
}

/// Serves a log to whom it is for.
pub(super) async fn serve(
    state: Shared,
    asked: Asked,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response> {
    let task = asked.task.as_deref();
    let log = logs::find(&state, &asked.actor, asked.job, task, asked.wish).await?;
    let length = log.length(&state).await?;
    match How::of(query)? {
        How::Follow { early } => {
            let from = range::begin(answer::range(headers), length);
            Ok(follow(state, asked, log, (from, early)))
        }
        _ if log.is_to_come(length) => Err(Error::Hidden("log yet")),
        How::Lines(lines) => self::lines(&state, &log, length, lines).await,
        How::Bytes => bytes(&state, &log, length, answer::range(headers)).await,
    }
}

enum How {
    Bytes,
    Lines(Lines),
    Follow { early: bool },
}

impl How {
    fn of(query: Option<&str>) -> Result<Self> {
        let mut how = Self::Bytes;
        for pair in query.unwrap_or_default().split('&') {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("lines", range) => {
                    let lines = Lines::parse(range).ok_or_else(|| {
                        Error::invalid("`lines` is `first-last`, counted from 1: ?lines=10-20")
                    })?;
                    how = Self::Lines(lines);
                }
                ("follow", "" | "1" | "true") => how = Self::Follow { early: false },
                ("follow", "early") => how = Self::Follow { early: true },
                _ => {}
            }
        }
        Ok(how)
    }
}

async fn bytes(
    state: &crate::state::State,
    log: &Log,
    length: u64,
    range: Option<&str>,
) -> Result<Response> {
    let (status, from, to) = match range::part(range, length) {
        Part::Whole => (StatusCode::OK, 0, length),
        Part::Bytes(from, to) => (StatusCode::PARTIAL_CONTENT, from, to),
        Part::Beyond => (
            StatusCode::PARTIAL_CONTENT,
            length.saturating_sub(1),
            length,
        ),
    };
    let mut builder = answer::foreign(status, PLAIN)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_LENGTH, to - from);
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {from}-{}/{length}", to.saturating_sub(1));
        builder = builder.header(header::CONTENT_RANGE, range);
    }
    let mut reader = log.read(state, from, to).await?;
    // Once the head is sent only the connection's end says that something failed. Who was broken
    // off so asks again, from the last byte on that it has, and is told why here.
    let mut first = BytesMut::with_capacity(CHUNK);
    while first.len() < 2 {
        let read = reader.read_buf(&mut first).await;
        if read.map_err(Error::of_log)? == 0 {
            break;
        }
    }
    let reader = Cursor::new(first).chain(reader);
    Ok(answer::with(
        builder,
        Body::from_stream(ReaderStream::new(reader)),
    ))
}

async fn lines(
    state: &crate::state::State,
    log: &Log,
    length: u64,
    lines: Lines,
) -> Result<Response> {
    let (from, line) = log.seek_line(state, lines.first()).await?;
    let cut = Cut::new(log.read(state, from, length).await?, line, lines);
    let stream = stream::try_unfold(cut, async |mut cut| {
        Ok::<_, std::io::Error>(cut.next().await?.map(|bytes| (bytes, cut)))
    });
    let builder = answer::foreign(StatusCode::OK, PLAIN);
    Ok(answer::with(builder, Body::from_stream(Box::pin(stream))))
}

fn follow(state: Shared, asked: Asked, log: Log, from: (u64, bool)) -> Response {
    let which = (asked.job, asked.task, asked.wish);
    let follower = Follower::new(state, (asked.actor, asked.token), which, log, from);
    let stream = stream::try_unfold(follower, async |mut follower| {
        Ok::<_, Error>(follower.next().await?.map(|bytes| (bytes, follower)))
    });
    let builder = answer::foreign(StatusCode::OK, PLAIN).header("x-accel-buffering", "no");
    answer::with(builder, Body::from_stream(Box::pin(stream)))
}
