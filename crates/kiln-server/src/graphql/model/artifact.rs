//! Files that jobs made.

use async_graphql::{Context, Object, Result};
use kiln_store::model;

use super::{super::asking, scalars::Time};
use crate::{app::artifacts, urls};

/// A file that a job made.
#[derive(Debug)]
pub(in super::super) struct Artifact(pub(in super::super) model::Artifact);

/// A file that a job made.
#[Object]
impl Artifact {
    async fn id(&self) -> i32 {
        self.0.id.0
    }

    async fn created(&self) -> Time {
        Time(self.0.created)
    }

    /// Original path in the guest
    async fn path(&self) -> &str {
        &self.0.path
    }

    /// Size in bytes
    async fn size(&self) -> i32 {
        // The schema has 32 bits for it: what is more is as much as they can say.
        i32::try_from(self.0.size).unwrap_or(i32::MAX)
    }

    /// URL at which the artifact may be downloaded, or null if pruned
    async fn url(&self, ctx: &Context<'_>) -> Result<Option<String>> {
        let (state, _) = asking(ctx)?;
        let name = artifacts::file_name(&self.0);
        let url = || urls::artifact(&state.config.origin, self.0.id, name);
        Ok((!self.0.pruned).then(url))
    }

    /// SHA-256 in hexadecimal (kiln)
    async fn sha256(&self) -> &str {
        &self.0.sha256
    }
}
