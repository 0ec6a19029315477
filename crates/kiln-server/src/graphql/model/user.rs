//! People.

use async_graphql::{Context, Interface, Object, Result};
use kiln_store::model;

use super::{
    super::asking,
    directives::access,
    enums::{AccessKind, AccessScope},
    job::JobCursor,
    scalars::{Cursor, Time},
};
use crate::app::jobs;

#[expect(
    clippy::duplicated_attributes,
    reason = "two fields of an interface may have one type"
)]
/// Who owns jobs. All are users.
#[derive(Debug, Interface)]
#[graphql(
    field(name = "id", ty = "i32"),
    field(name = "created", ty = "Time"),
    field(name = "updated", ty = "Time"),
    field(
        name = "canonical_name",
        ty = "String",
        desc = "The canonical name of this entity. For users, this is their username\nprefixed with '~'. Additional entity types will be supported in the future."
    )
)]
pub(in super::super) enum Entity {
    /// A person.
    User(User),
}

impl From<model::User> for Entity {
    fn from(user: model::User) -> Self {
        Self::User(User(user))
    }
}

/// A person.
#[derive(Debug)]
pub(in super::super) struct User(pub(in super::super) model::User);

/// A person.
#[Object]
impl User {
    async fn id(&self) -> i32 {
        self.0.id.0
    }

    async fn created(&self) -> Time {
        Time(self.0.created)
    }

    async fn updated(&self) -> Time {
        Time(self.0.updated)
    }

    async fn canonical_name(&self) -> String {
        format!("~{}", self.0.username)
    }

    async fn username(&self) -> &str {
        &self.0.username
    }

    async fn email(&self) -> &str {
        &self.0.email
    }

    async fn url(&self) -> Option<&str> {
        None
    }

    async fn location(&self) -> Option<&str> {
        None
    }

    async fn bio(&self) -> Option<&str> {
        None
    }

    /// Jobs submitted by this user.
    #[graphql(
        complexity = "25 * child_complexity + 1",
        directive = access::apply(AccessScope::Jobs, AccessKind::Ro)
    )]
    async fn jobs(&self, ctx: &Context<'_>, cursor: Option<Cursor>) -> Result<JobCursor> {
        let (state, actor) = asking(ctx)?;
        let before = cursor.map(|cursor| cursor.0);
        let page = jobs::list(state, actor, Some(self.0.id), before).await?;
        Ok(page.into())
    }
}
