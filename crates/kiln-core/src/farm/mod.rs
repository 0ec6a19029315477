//! The words and rules of a farm: who may do what, what a job asks of a worker,
//! who gets which slot, what happens when a lease ends.
//!
//! All of it is pure: clocks, random numbers and what is stored are arguments.

pub mod attempt;
mod backoff;
mod grants;
mod ids;
pub mod lease;
pub mod limits;
pub mod lines;
mod names;
pub mod reception;
mod requirements;
pub mod schedule;
pub mod wait;

pub use backoff::Backoff;
pub use grants::{Access, GrantError, Grants, Kind, Scope};
pub use ids::{
    ArtifactId, Fence, GroupId, JobId, SessionId, ShareId, TaskId, TokenId, UserId, WorkerId,
};
pub use names::{LeaseKey, LogName};
pub use requirements::{Labels, OfferedImage, Requirements, RequirementsError, labels};

use serde::{Deserialize, Serialize};

/// Who sees a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Everybody, in lists too.
    Public,
    /// Everybody who has the link. The default.
    Unlisted,
    /// The owner.
    Private,
}

impl Visibility {
    /// The name in databases, in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Unlisted => "unlisted",
            Self::Private => "private",
        }
    }

    /// Reads [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Public, Self::Unlisted, Self::Private]
            .into_iter()
            .find(|visibility| visibility.as_str() == text)
    }
}
