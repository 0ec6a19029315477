//! Who asks.

use axum::http::{HeaderMap, header};
use kiln_core::farm::{Grants, JobId};
use kiln_store::model::User;

use super::{Error, Result};
use crate::state::State;

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) enum Actor {
    /// Somebody without a token.
    Nobody,
    /// A person, by a token that was granted this.
    Person {
        /// Who.
        user: User,
        /// What the token may do.
        grants: Grants,
    },
    /// What runs in the guest of this job, while it runs.
    Job(JobId),
}

/// No token is longer, in bytes.
const MAX_TOKEN: usize = 128;

const UNKNOWN: Error = Error::Unauthenticated(
    "this token is not known here, was taken back or has ended; ask the farm's operator for another",
);

impl Actor {
    /// Who sent a request with these headers.
    ///
    /// # Errors
    /// When there is a token that nobody may use, or something else than a token.
    pub(crate) async fn of(state: &State, headers: &HeaderMap) -> Result<Self> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Ok(Self::Nobody);
        };
        let bearer = value.to_str().ok().and_then(bearer);
        let token = bearer.ok_or(Error::Unauthenticated(
            "this header is not understood; send `Authorization: Bearer <token>`",
        ))?;
        let hash = super::token::hash(token);
        if token.len() > MAX_TOKEN {
            Err(UNKNOWN)
        } else if token.starts_with("kiln_u_") {
            let known = state.store.token(hash).await?;
            let (user, grants) = known.ok_or(UNKNOWN)?;
            Ok(Self::Person { user, grants })
        } else if token.starts_with("kiln_j_") {
            let job = state.store.job_token(hash).await?;
            Ok(Self::Job(job.ok_or(UNKNOWN)?))
        } else if token.starts_with("kiln_w_") {
            Err(Error::Unauthenticated(
                "this is a worker's token: it can do nothing but work",
            ))
        } else {
            Err(UNKNOWN)
        }
    }

    /// The same, where nobody comes in without a token.
    ///
    /// # Errors
    /// As [`Self::of`], and without a token.
    pub(crate) async fn known(state: &State, headers: &HeaderMap) -> Result<Self> {
        match Self::of(state, headers).await? {
            Self::Nobody => Err(super::permission::NO_TOKEN),
            actor => Ok(actor),
        }
    }

    /// The person, if it is one.
    pub(crate) fn person(&self) -> Option<&User> {
        match self {
            Self::Person { user, .. } => Some(user),
            Self::Nobody | Self::Job(_) => None,
        }
    }

    /// Whether that is a person who may see and change what is others'.
    pub(crate) fn is_admin(&self) -> bool {
        self.person().is_some_and(|user| user.admin)
    }
}

/// The token of `Bearer <token>`; the scheme's case does not count (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
