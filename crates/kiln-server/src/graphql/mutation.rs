//! What is told to be done.

use async_graphql::{Context, Object, Result};
use kiln_core::farm::{GroupId, JobId, Visibility as Seen};
use kiln_store::model::Trigger;

use super::{
    Asking, asking,
    model::{
        artifact::Artifact,
        directives::{access, internal, worker},
        enums::{AccessKind, AccessScope, JobStatus, TaskStatus, Visibility},
        group::{JobGroup, TriggerInput},
        job::Job,
        scalars::File,
        secret::Secret,
        webhook::{UserWebhookInput, WebhookSubscription},
        worker::Worker,
    },
};
use crate::app::{
    self, Error, groups, jobs,
    permission::{self, Deed},
    submit::{self, Submission},
    workers,
};

const NO_WEBHOOKS: Error = Error::NotYet("this farm has no user webhooks yet");
const NO_SECRETS: Error = Error::NotYet("this farm keeps no secrets yet");

/// The orders.
pub(super) struct Mutation;

#[Object]
impl Mutation {
    /// Submits a new job to the queue.
    ///
    /// 'secrets' may be set to false to disable secrets for this build. If
    /// unspecified, secrets are enabled if at least one is specified in the manifest
    /// and the SECRETS:RO grant is available. Enabling secrets requires the
    /// SECRETS:RO grant.
    ///
    /// 'execute' may be set to false to defer queueing this job. Builds are
    /// executed immediately if unspecified.
    ///
    /// 'requirements' are labels that a worker must have, 'key=value' each (kiln).
    #[expect(
        clippy::too_many_arguments,
        reason = "the arguments are builds.sr.ht's"
    )]
    #[graphql(
        complexity = "100 + child_complexity",
        directive = access::apply(AccessScope::Jobs, AccessKind::Rw)
    )]
    async fn submit(
        &self,
        ctx: &Context<'_>,
        manifest: String,
        tags: Option<Vec<String>>,
        note: Option<String>,
        secrets: Option<bool>,
        execute: Option<bool>,
        visibility: Option<Visibility>,
        requirements: Option<Vec<String>>,
    ) -> Result<Job> {
        let (state, actor) = asking(ctx)?;
        let submission = Submission {
            manifest,
            tags,
            note,
            secrets,
            execute,
            visibility: visibility.map(Seen::from),
            requirements,
            key: key(ctx)?,
        };
        Ok(submit::submit(state, actor, submission).await?.into())
    }

    /// Queues a pending job.
    #[graphql(directive = access::apply(AccessScope::Jobs, AccessKind::Rw))]
    async fn start(
        &self,
        ctx: &Context<'_>,
        #[graphql(name = "jobID")] job_id: i32,
    ) -> Result<Option<Job>> {
        let (state, actor) = asking(ctx)?;
        let job = jobs::start(state, actor, JobId(job_id)).await?;
        Ok(Some(job.into()))
    }

    /// Cancels a submitted job.
    #[graphql(directive = access::apply(AccessScope::Jobs, AccessKind::Rw))]
    async fn cancel(&self, ctx: &Context<'_>, job_id: i32) -> Result<Option<Job>> {
        let (state, actor) = asking(ctx)?;
        let job = jobs::cancel(state, actor, JobId(job_id)).await?;
        Ok(Some(job.into()))
    }

    /// Updates the visibility of a job.
    #[graphql(directive = access::apply(AccessScope::Jobs, AccessKind::Rw))]
    async fn update(
        &self,
        ctx: &Context<'_>,
        job_id: i32,
        visibility: Visibility,
    ) -> Result<Option<Job>> {
        let (state, actor) = asking(ctx)?;
        let job = jobs::update(state, actor, JobId(job_id), visibility.into()).await?;
        Ok(Some(job.into()))
    }

    /// Creates a job group from several pending jobs.
    ///
    /// 'execute' may be set to false to defer queueing this job. The job group is
    /// executed immediately if unspecified.
    #[graphql(directive = access::apply(AccessScope::Jobs, AccessKind::Rw))]
    async fn create_group(
        &self,
        ctx: &Context<'_>,
        job_ids: Vec<i32>,
        triggers: Option<Vec<TriggerInput>>,
        execute: Option<bool>,
        note: Option<String>,
    ) -> Result<JobGroup> {
        let (state, actor) = asking(ctx)?;
        let triggers = triggers.unwrap_or_default().into_iter();
        let triggers: Vec<_> = triggers
            .map(Trigger::try_from)
            .collect::<app::Result<_>>()?;
        let group = groups::NewGroup {
            jobs: job_ids.into_iter().map(JobId).collect(),
            triggers,
            execute: execute.unwrap_or(true),
            note,
        };
        Ok(JobGroup(groups::create(state, actor, group).await?))
    }

    /// Starts a pending job group.
    #[graphql(directive = access::apply(AccessScope::Jobs, AccessKind::Rw))]
    async fn start_group(&self, ctx: &Context<'_>, group_id: i32) -> Result<Option<JobGroup>> {
        let (state, actor) = asking(ctx)?;
        let group = groups::start(state, actor, GroupId(group_id)).await?;
        Ok(Some(JobGroup(group)))
    }

    /// Copies a secret to the target user account.
    #[graphql(directive = access::apply(AccessScope::Secrets, AccessKind::Rw))]
    async fn share_secret(
        &self,
        ctx: &Context<'_>,
        #[graphql(name = "uuid")] _uuid: String,
        #[graphql(name = "user")] _user: String,
    ) -> Result<Secret> {
        let (_, actor) = asking(ctx)?;
        permission::may(actor, Deed::ShareSecret)?;
        Err(NO_SECRETS.into())
    }

    /// Claims a job.
    #[graphql(directive = worker::apply())]
    async fn claim(
        &self,
        ctx: &Context<'_>,
        #[graphql(name = "jobId")] _job_id: i32,
    ) -> Result<Option<Job>> {
        nobody(ctx)
    }

    /// Updates job status.
    #[graphql(directive = worker::apply())]
    async fn update_job(
        &self,
        ctx: &Context<'_>,
        #[graphql(name = "jobId")] _job_id: i32,
        #[graphql(name = "status")] _status: JobStatus,
    ) -> Result<Option<Job>> {
        nobody(ctx)
    }

    /// Updates task status.
    #[graphql(directive = worker::apply())]
    async fn update_task(
        &self,
        ctx: &Context<'_>,
        #[graphql(name = "taskId")] _task_id: i32,
        #[graphql(name = "status")] _status: TaskStatus,
    ) -> Result<Option<Job>> {
        nobody(ctx)
    }

    /// Uploads a build artifact.
    #[graphql(directive = worker::apply())]
    async fn create_artifact(
        &self,
        ctx: &Context<'_>,
        #[graphql(name = "jobId")] _job_id: i32,
        #[graphql(name = "path")] _path: String,
        #[graphql(name = "contents")] _contents: File,
    ) -> Result<Option<Artifact>> {
        nobody(ctx)
    }

    /// Creates a new user webhook subscription. When an event from the
    /// provided list of events occurs, the 'query' parameter (a GraphQL query)
    /// will be evaluated and the results will be sent to the provided URL as the
    /// body of an HTTP POST request. The list of events must include at least one
    /// event, and no duplicates.
    ///
    /// This query is evaluated in the webhook context, such that query { webhook }
    /// may be used to access details of the event which trigged the webhook. The
    /// query may not make any mutations.
    async fn create_user_webhook(
        &self,
        ctx: &Context<'_>,
        #[graphql(name = "config")] _config: UserWebhookInput,
    ) -> Result<WebhookSubscription> {
        let (_, actor) = asking(ctx)?;
        permission::may(actor, Deed::Webhooks)?;
        Err(NO_WEBHOOKS.into())
    }

    /// Deletes a user webhook. Any events already queued may still be
    /// delivered after this request completes. Clients authenticated with a
    /// personal access token may delete any webhook registered for their account,
    /// but authorized OAuth 2.0 clients may only delete their own webhooks.
    /// Manually deleting a webhook configured by a third-party client may cause
    /// unexpected behavior with the third-party integration.
    async fn delete_user_webhook(
        &self,
        ctx: &Context<'_>,
        #[graphql(name = "id")] _id: i32,
    ) -> Result<WebhookSubscription> {
        let (_, actor) = asking(ctx)?;
        permission::may(actor, Deed::Webhooks)?;
        Err(NO_WEBHOOKS.into())
    }

    /// Deletes the authenticated user's account. Internal use only.
    #[graphql(directive = internal::apply())]
    async fn delete_user(&self, ctx: &Context<'_>) -> Result<i32> {
        nobody(ctx)
    }

    /// Gives a worker no jobs until it is resumed, for admins (kiln)
    #[graphql(directive = access::apply(AccessScope::Jobs, AccessKind::Rw))]
    async fn pause_worker(
        &self,
        ctx: &Context<'_>,
        name: String,
        reason: Option<String>,
    ) -> Result<Vec<Worker>> {
        let (state, actor) = asking(ctx)?;
        let reason = reason.filter(|reason| !reason.is_empty());
        let reason = reason.as_deref().unwrap_or("an admin paused it");
        let paused = workers::pause(state, actor, &name, Some(reason)).await?;
        Ok(Worker::all(paused))
    }

    /// Gives a worker jobs again, for admins (kiln)
    #[graphql(directive = access::apply(AccessScope::Jobs, AccessKind::Rw))]
    async fn resume_worker(&self, ctx: &Context<'_>, name: String) -> Result<Vec<Worker>> {
        let (state, actor) = asking(ctx)?;
        Ok(Worker::all(
            workers::pause(state, actor, &name, None).await?,
        ))
    }
}

fn nobody<T>(ctx: &Context<'_>) -> Result<T> {
    let (_, actor) = asking(ctx)?;
    permission::may(actor, Deed::Work)?;
    Err(Error::Hidden("operation").into())
}

/// The submission's key. Several submissions of one request differ by their names
/// in the answer.
fn key(ctx: &Context<'_>) -> Result<Option<String>> {
    let name = ctx
        .field()
        .alias()
        .map(|alias| format!(" {alias}"))
        .unwrap_or_default();
    let key = ctx.data::<Asking>()?.key.as_ref();
    Ok(key.map(|key| format!("{key}{name}")))
}
