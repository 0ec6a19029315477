//! People.

use kiln_core::farm::UserId;
use kiln_store::model::User;

use super::{
    Actor, Error, Result,
    permission::{self, Deed},
};
use crate::state::State;

/// The one who asks.
///
/// # Errors
/// Without a person's token that was granted it.
pub(crate) fn me(actor: &Actor) -> Result<User> {
    permission::may(actor, Deed::Profile)?;
    actor.person().cloned().ok_or(Error::Hidden("user"))
}

/// A person by number.
///
/// # Errors
/// Without the grant.
pub(crate) async fn by_id(state: &State, actor: &Actor, id: UserId) -> Result<Option<User>> {
    permission::may(actor, Deed::Profile)?;
    if let Some(user) = actor.person().filter(|user| user.id == id) {
        return Ok(Some(user.clone()));
    }
    Ok(state.store.user(id).await?)
}

/// A person by name, with or without `~`.
///
/// # Errors
/// Without the grant.
pub(crate) async fn by_name(state: &State, actor: &Actor, name: &str) -> Result<Option<User>> {
    permission::may(actor, Deed::Profile)?;
    let name = name.strip_prefix('~').unwrap_or(name);
    if name.len() > kiln_core::farm::limits::USERNAME {
        return Ok(None);
    }
    Ok(state.store.user_by_name(name).await?)
}

/// The name of a job's owner, for pages and links: no grant is asked, whoever
/// sees a job's page sees whose it is.
///
/// # Errors
/// When the store fails.
pub(crate) async fn name_of(state: &State, actor: &Actor, id: UserId) -> Result<String> {
    if let Some(user) = actor.person().filter(|user| user.id == id) {
        return Ok(user.username.clone());
    }
    let user = state.store.user(id).await?;
    Ok(user.ok_or(Error::Hidden("user"))?.username)
}
