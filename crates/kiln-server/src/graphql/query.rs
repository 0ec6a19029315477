//! What is asked.

use async_graphql::{Context, Object, Result};
use kiln_core::farm::{JobId, UserId};

use super::{
    asking,
    model::{
        directives::access,
        enums::{AccessKind, AccessScope},
        job::{Job, JobCursor, or_none},
        scalars::Cursor,
        secret::SecretCursor,
        user::User,
        version::Version,
        webhook::{WebhookPayload, WebhookSubscription, WebhookSubscriptionCursor},
        worker::{QueuedJob, Worker},
    },
};
use crate::app::{
    Error, jobs,
    permission::{self, Deed, Wish},
    users, workers,
};

/// The most that `queue` gives.
const QUEUE: u32 = 1000;

/// The questions.
pub(super) struct Query;

#[Object]
impl Query {
    /// Returns API version information.
    async fn version(&self, ctx: &Context<'_>) -> Result<Version> {
        let (state, actor) = asking(ctx)?;
        permission::may(actor, Deed::Version)?;
        Ok(Version::of(state))
    }

    /// Returns the authenticated user.
    #[graphql(directive = access::apply(AccessScope::Profile, AccessKind::Ro))]
    async fn me(&self, ctx: &Context<'_>) -> Result<User> {
        let (_, actor) = asking(ctx)?;
        Ok(User(users::me(actor)?))
    }

    /// Returns a specific user.
    #[graphql(name = "userByID", directive = access::apply(AccessScope::Profile, AccessKind::Ro))]
    async fn user_by_id(&self, ctx: &Context<'_>, id: i32) -> Result<Option<User>> {
        let (state, actor) = asking(ctx)?;
        let user = users::by_id(state, actor, UserId(id)).await?;
        Ok(user.map(User))
    }

    #[graphql(directive = access::apply(AccessScope::Profile, AccessKind::Ro))]
    async fn user_by_name(&self, ctx: &Context<'_>, username: String) -> Result<Option<User>> {
        let (state, actor) = asking(ctx)?;
        let user = users::by_name(state, actor, &username).await?;
        Ok(user.map(User))
    }

    /// Returns jobs submitted by the authenticated user.
    #[graphql(
        complexity = "25 * child_complexity + 1",
        directive = access::apply(AccessScope::Jobs, AccessKind::Ro)
    )]
    async fn jobs(&self, ctx: &Context<'_>, cursor: Option<Cursor>) -> Result<JobCursor> {
        let (state, actor) = asking(ctx)?;
        let before = cursor.map(|cursor| cursor.0);
        Ok(jobs::list(state, actor, None, before).await?.into())
    }

    /// Returns information about a specific job.
    #[graphql(directive = access::apply(AccessScope::Jobs, AccessKind::Ro))]
    async fn job(&self, ctx: &Context<'_>, id: i32) -> Result<Option<Job>> {
        let (state, actor) = asking(ctx)?;
        or_none(jobs::find(state, actor, JobId(id), Wish::Read).await)
    }

    /// Returns secrets owned by the authenticated user.
    #[graphql(directive = access::apply(AccessScope::Secrets, AccessKind::Ro))]
    async fn secrets(&self, ctx: &Context<'_>, _cursor: Option<Cursor>) -> Result<SecretCursor> {
        let (_, actor) = asking(ctx)?;
        permission::may(actor, Deed::ReadSecrets)?;
        Ok(SecretCursor::default())
    }

    /// Returns a list of user webhook subscriptions. For clients
    /// authenticated with a personal access token, this returns all webhooks
    /// configured by all GraphQL clients for your account. For clients
    /// authenticated with an OAuth 2.0 access token, this returns only webhooks
    /// registered for your client.
    async fn user_webhooks(
        &self,
        ctx: &Context<'_>,
        _cursor: Option<Cursor>,
    ) -> Result<WebhookSubscriptionCursor> {
        let (_, actor) = asking(ctx)?;
        permission::may(actor, Deed::Webhooks)?;
        Ok(WebhookSubscriptionCursor::default())
    }

    /// Returns details of a user webhook subscription by its ID.
    async fn user_webhook(
        &self,
        ctx: &Context<'_>,
        #[graphql(name = "id")] _id: i32,
    ) -> Result<Option<WebhookSubscription>> {
        let (_, actor) = asking(ctx)?;
        permission::may(actor, Deed::Webhooks)?;
        Ok(None)
    }

    /// Returns information about the webhook currently being processed. This is
    /// not valid during normal queries over HTTP, and will return an error if used
    /// outside of a webhook context.
    async fn webhook(&self) -> Result<WebhookPayload> {
        Err(Error::invalid("there is no webhook being processed here").into())
    }

    /// What waits for a worker, and why: all of it for an admin, else one's own
    /// (kiln)
    #[graphql(
        complexity = "50 * child_complexity + 50",
        directive = access::apply(AccessScope::Jobs, AccessKind::Ro)
    )]
    async fn queue(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 100, desc = "At most so many; at most 1000")] limit: i32,
    ) -> Result<Vec<QueuedJob>> {
        let (state, actor) = asking(ctx)?;
        let limit = u32::try_from(limit).ok().filter(|limit| *limit <= QUEUE);
        let limit = limit.ok_or_else(|| Error::invalid("`limit` is a number from 0 to 1000"))?;
        let waiting = jobs::queue(state, actor, limit).await?;
        Ok(waiting.into_iter().map(Into::into).collect())
    }

    /// The workers, for admins (kiln)
    #[graphql(
        complexity = "10 * child_complexity + 1",
        directive = access::apply(AccessScope::Jobs, AccessKind::Ro)
    )]
    async fn workers(&self, ctx: &Context<'_>) -> Result<Vec<Worker>> {
        let (state, actor) = asking(ctx)?;
        let workers = workers::list(state, actor).await?;
        Ok(workers.into_iter().flat_map(Worker::all).collect())
    }
}
