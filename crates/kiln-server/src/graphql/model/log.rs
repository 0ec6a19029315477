//! Logs.

use async_graphql::{Context, Object, Result};

use super::super::asking;
use crate::app::logs;

/// How much of a log's end the API shows, in bytes.
const TAIL: u64 = 128 << 10;

/// A log that the one who asks may read.
#[derive(Debug)]
pub(in super::super) struct Log {
    pub(super) log: logs::Log,
    pub(super) url: String,
}

/// The log of a job or of a task.
#[Object]
impl Log {
    /// The most recently written 128 KiB of the build log.
    #[graphql(name = "last128KiB", complexity = "20")]
    async fn last_128_kib(&self, ctx: &Context<'_>) -> Result<String> {
        let (state, _) = asking(ctx)?;
        Ok(self.log.tail(state, TAIL).await?)
    }

    /// The URL at which the full build log can be downloaded with an authenticated
    /// GET request (text/plain).
    #[graphql(name = "fullURL")]
    async fn full_url(&self) -> &str {
        &self.url
    }
}
