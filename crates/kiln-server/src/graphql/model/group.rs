//! Groups of jobs, and what happens when they have ended.

use async_graphql::{Context, InputObject, Interface, Object, Result, SimpleObject};
use kiln_store::model::{self, TriggerAction};

use super::{
    super::asking,
    directives::access,
    enums::{AccessKind, AccessScope, TriggerCondition, TriggerType},
    job::{Job, many, owner},
    scalars::Time,
    user::Entity,
};
use crate::app::{self, groups};

/// A group of jobs.
#[derive(Debug)]
pub(in super::super) struct JobGroup(pub(in super::super) model::Group);

/// Jobs that were submitted together.
#[Object]
impl JobGroup {
    async fn id(&self) -> i32 {
        self.0.id.0
    }

    async fn created(&self) -> Time {
        Time(self.0.created)
    }

    async fn note(&self) -> Option<&str> {
        self.0.note.as_deref()
    }

    #[graphql(directive = access::apply(AccessScope::Profile, AccessKind::Ro))]
    async fn owner(&self, ctx: &Context<'_>) -> Result<Entity> {
        owner(ctx, self.0.owner).await
    }

    #[graphql(complexity = "25 * child_complexity + 1")]
    async fn jobs(&self, ctx: &Context<'_>) -> Result<Vec<Job>> {
        let (state, actor) = asking(ctx)?;
        Ok(many(groups::jobs_of(state, actor, self.0.id).await?))
    }

    #[graphql(complexity = "4 * child_complexity + 1")]
    async fn triggers(&self, ctx: &Context<'_>) -> Result<Vec<Trigger>> {
        let (_, actor) = asking(ctx)?;
        // None for others: they have addresses, and links that are secrets.
        let triggers = groups::triggers(actor, &self.0).iter().cloned();
        Ok(triggers.map(Into::into).collect())
    }
}

/// Triggers run upon the completion of all of the jobs in a job group. Note that
/// these triggers are distinct from the ones defined by an individual job's
/// build manifest, but are similar in functionality.
#[derive(Debug, Interface)]
#[graphql(field(name = "condition", ty = "&TriggerCondition"))]
pub(in super::super) enum Trigger {
    /// Sends mail.
    Email(EmailTrigger),
    /// Asks a URL.
    Webhook(WebhookTrigger),
}

/// Sends mail.
#[derive(Debug, SimpleObject)]
pub(in super::super) struct EmailTrigger {
    condition: TriggerCondition,
    to: String,
    cc: Option<String>,
    in_reply_to: Option<String>,
}

/// Asks a URL.
#[derive(Debug, SimpleObject)]
pub(in super::super) struct WebhookTrigger {
    condition: TriggerCondition,
    url: String,
}

impl From<model::Trigger> for Trigger {
    fn from(trigger: model::Trigger) -> Self {
        let condition = trigger.condition.into();
        match trigger.action {
            TriggerAction::Email {
                to,
                cc,
                in_reply_to,
            } => Self::Email(EmailTrigger {
                condition,
                to,
                cc,
                in_reply_to,
            }),
            TriggerAction::Webhook { url } => Self::Webhook(WebhookTrigger { condition, url }),
        }
    }
}

/// A mail that is sent.
#[derive(Debug, InputObject)]
pub(in super::super) struct EmailTriggerInput {
    to: String,
    cc: Option<String>,
    in_reply_to: Option<String>,
}

/// A URL that is asked.
#[derive(Debug, InputObject)]
pub(in super::super) struct WebhookTriggerInput {
    url: String,
}

/// A trigger: its type says which of the others must be there.
#[derive(Debug, InputObject)]
pub(in super::super) struct TriggerInput {
    r#type: TriggerType,
    condition: TriggerCondition,
    email: Option<EmailTriggerInput>,
    webhook: Option<WebhookTriggerInput>,
}

impl TryFrom<TriggerInput> for model::Trigger {
    type Error = app::Error;

    fn try_from(input: TriggerInput) -> Result<Self, Self::Error> {
        let action = match (input.r#type, input.email, input.webhook) {
            (TriggerType::Email, Some(email), None) => TriggerAction::Email {
                to: email.to,
                cc: email.cc,
                in_reply_to: email.in_reply_to,
            },
            (TriggerType::Webhook, None, Some(webhook)) => {
                TriggerAction::Webhook { url: webhook.url }
            }
            (TriggerType::Email, ..) => {
                return Err(app::Error::invalid(
                    "a trigger of type EMAIL has `email` and not `webhook`",
                ));
            }
            (TriggerType::Webhook, ..) => {
                return Err(app::Error::invalid(
                    "a trigger of type WEBHOOK has `webhook` and not `email`",
                ));
            }
        };
        Ok(Self {
            condition: input.condition.into(),
            action,
        })
    }
}
