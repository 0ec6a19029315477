//! Who calls: a worker by its token, one start of it by its session.

use axum::{
    RequestPartsExt,
    extract::{FromRequestParts, Path},
};
use http::{HeaderMap, header, request::Parts};
use kiln_core::farm::{Fence, SessionId, WorkerId};
use kiln_store::model::{LeaseKey, TokenHash, Worker};
use kiln_wire::report::SESSION_HEADER;

use super::refusal::Refused;
use crate::{
    app::{sessions, token},
    state::Shared,
};

/// The longest token that is looked up, in bytes.
const TOKEN: usize = 256;

/// A worker, by its token.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) worker: Worker,
    pub(super) token: TokenHash,
}

/// A report's: what it is reported under.
#[derive(Debug)]
pub(super) struct Holder {
    worker: WorkerId,
    session: SessionId,
    fence: Fence,
}

impl Holder {
    pub(super) fn key(&self) -> LeaseKey<'_> {
        LeaseKey {
            worker: self.worker,
            session: &self.session,
            fence: self.fence,
        }
    }
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, Refused> {
        let token = token_of(parts)?;
        match sessions::worker(state, token).await? {
            Some(worker) => Ok(Self { worker, token }),
            None => Err(Refused::Unauthorized),
        }
    }
}

impl FromRequestParts<Shared> for Holder {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, Refused> {
        let token = token_of(parts)?;
        let worker = state.holders.worker(&state.store, token).await?;
        let worker = worker.ok_or(Refused::Unauthorized)?;
        let session = parts.headers.get(SESSION_HEADER);
        let session = session.and_then(|value| value.to_str().ok());
        let session = session.and_then(|text| SessionId::try_from(text.to_owned()).ok());
        let session = session.ok_or_else(|| {
            let text = format!("the header {SESSION_HEADER} is 32 hexadecimal digits");
            Refused::invalid(text)
        })?;
        let path: Result<Path<String>, _> = parts.extract().await;
        let fence = path.ok().and_then(|Path(fence)| fence.parse().ok());
        let fence = fence.ok_or_else(|| Refused::invalid("a lease is a number"))?;
        Ok(Self {
            worker,
            session,
            fence,
        })
    }
}

fn token_of(parts: &Parts) -> Result<TokenHash, Refused> {
    let token = bearer(&parts.headers).ok_or(Refused::Unauthorized)?;
    Ok(token::hash(token))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    let fits = scheme.eq_ignore_ascii_case("bearer") && token.len() <= TOKEN;
    fits.then_some(token)
}
