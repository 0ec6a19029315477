//! A job's artifacts on their way to the server, from the disk.

use std::{io, path::Path, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use kiln_wire::client::Body;
use tokio::{
    fs::File,
    io::{AsyncReadExt, Take},
};

use super::{
    backoff::Backoff,
    lease::{Answer, Lease, query},
};
use crate::Artifact;

/// How long the server may take in any case, and the slowest connection that an
/// artifact gets through.
const AT_LEAST: Duration = Duration::from_secs(60);
const SLOWEST: u64 = 50_000;
/// What is read at once.
const PIECE: usize = 128 << 10;

/// Why an artifact is not at the server.
pub(super) enum Failed {
    /// The lease is lost.
    Lost,
    /// The server will never take it; why.
    Refused(String),
    /// It can't be read here any more.
    Unreadable(io::Error),
}

/// Sends one, as often as it takes.
pub(super) async fn upload(
    lease: &Lease,
    directory: &Path,
    artifact: &Artifact,
) -> Result<(), Failed> {
    let what = format!(
        "artifact{}",
        query(&[
            ("index", &artifact.index.to_string()),
            ("path", &artifact.path),
            ("size", &artifact.size.to_string()),
            ("sha256", &artifact.sha256),
        ])
    );
    let path = directory.join(&artifact.file);
    let limit = AT_LEAST + Duration::from_secs(artifact.size / SLOWEST);
    let mut backoff = Backoff::of_server();
    loop {
        let file = File::open(&path).await.map_err(Failed::Unreadable)?;
        let body = streamed(file.take(artifact.size));
        let bytes_type = Some("application/octet-stream");
        let once = lease.once(Method::PUT, &what, bytes_type, body, limit);
        let answer = tokio::select! {
            biased;
            () = lease.lost() => return Err(Failed::Lost),
            answer = once => answer,
        };
        match answer {
            Ok(Answer::Taken(_)) => return Ok(()),
            Ok(Answer::Lost) => return Err(Failed::Lost),
            Ok(Answer::Offset(_)) => return Err(Failed::Refused("it has no offset".to_owned())),
            Ok(Answer::Refused(refusal)) => return Err(Failed::Refused(refusal.message)),
            Err(why) => tokio::select! {
                biased;
                () = lease.lost() => return Err(Failed::Lost),
                () = lease.again(&what, &why, &mut backoff) => {}
            },
        }
    }
}

/// The file's bytes as a body, a piece in memory at a time.
fn streamed(file: Take<File>) -> Body {
    let pieces = stream::try_unfold(file, |mut file| async move {
        let mut piece = BytesMut::with_capacity(PIECE);
        let read = file.read_buf(&mut piece).await?;
        let piece: Option<Bytes> = (read > 0).then(|| piece.freeze());
        Ok::<_, io::Error>(piece.map(|piece| (Frame::data(piece), file)))
    });
    StreamBody::new(pieces).boxed()
}
