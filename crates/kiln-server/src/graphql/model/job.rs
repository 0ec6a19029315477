//! Jobs and tasks.

use std::sync::Arc;

use async_graphql::{Context, Object, Result, SimpleObject};
use kiln_core::{
    farm::{JobId, UserId},
    job::JobStatus as State,
};
use kiln_store::model;
use tokio::sync::OnceCell;

use super::{
    super::asking,
    artifact::Artifact,
    directives::access,
    enums::{AccessKind, AccessScope, JobStatus, TaskStatus, Visibility},
    group::JobGroup,
    log::Log,
    scalars::{Cursor, Time},
    secret::Secret,
    user::Entity,
    worker::{Attempt, JobSource},
};
use crate::{
    app::{self, Error, groups, jobs, logs, permission, users},
    urls,
};

/// A job that the one who asks may read.
#[derive(Debug, Clone)]
pub(in super::super) struct Job {
    job: Arc<model::Job>,
    list: Arc<List>,
}

/// The jobs that are shown together: what they have is asked of the store at once.
#[derive(Debug)]
struct List {
    ids: Vec<JobId>,
    tasks: OnceCell<Vec<model::Task>>,
    artifacts: OnceCell<Vec<model::Artifact>>,
}

/// Jobs that are shown together.
pub(in super::super) fn many(jobs: Vec<model::Job>) -> Vec<Job> {
    let list = Arc::new(List {
        ids: jobs.iter().map(|job| job.id).collect(),
        tasks: OnceCell::new(),
        artifacts: OnceCell::new(),
    });
    let one = |job| Job {
        job: Arc::new(job),
        list: list.clone(),
    };
    jobs.into_iter().map(one).collect()
}

impl From<model::Job> for Job {
    fn from(job: model::Job) -> Self {
        let list = List {
            ids: vec![job.id],
            tasks: OnceCell::new(),
            artifacts: OnceCell::new(),
        };
        Self {
            job: Arc::new(job),
            list: Arc::new(list),
        }
    }
}

/// Whose something is.
pub(super) async fn owner(ctx: &Context<'_>, id: UserId) -> Result<Entity> {
    let (state, actor) = asking(ctx)?;
    let user = users::by_id(state, actor, id).await?;
    Ok(user.ok_or(Error::Hidden("user"))?.into())
}

/// One unit of work: a manifest that is run in a machine of its own.
#[Object]
impl Job {
    async fn id(&self) -> i32 {
        self.job.id.0
    }

    async fn created(&self) -> Time {
        Time(self.job.created)
    }

    async fn updated(&self) -> Time {
        Time(self.job.updated)
    }

    async fn status(&self) -> JobStatus {
        self.job.status.into()
    }

    #[graphql(complexity = "100")]
    async fn manifest(&self, ctx: &Context<'_>) -> Result<String> {
        let (state, _) = asking(ctx)?;
        Ok(jobs::manifest(state, &self.job).await?)
    }

    async fn note(&self) -> Option<&str> {
        self.job.note.as_deref()
    }

    async fn tags(&self) -> &[String] {
        &self.job.tags
    }

    async fn visibility(&self) -> Visibility {
        self.job.visibility.into()
    }

    /// Name of the build image
    async fn image(&self) -> &str {
        &self.job.requirements.image
    }

    /// Name of the build runner which picked up this job, or null if the job is
    /// pending or queued.
    async fn runner(&self, ctx: &Context<'_>) -> Result<Option<String>> {
        let (state, _) = asking(ctx)?;
        let waits = matches!(self.job.status, State::Pending | State::Queued);
        let claimed = !waits && self.job.attempts > 0;
        Ok(claimed.then(|| state.config.runner.clone()))
    }

    #[graphql(directive = access::apply(AccessScope::Profile, AccessKind::Ro))]
    async fn owner(&self, ctx: &Context<'_>) -> Result<Entity> {
        owner(ctx, self.job.owner).await
    }

    async fn group(&self, ctx: &Context<'_>) -> Result<Option<JobGroup>> {
        let (state, _) = asking(ctx)?;
        let Some(id) = self.job.group else {
            return Ok(None);
        };
        Ok(groups::of(state, id).await?.map(JobGroup))
    }

    #[graphql(complexity = "10 * child_complexity + 1")]
    async fn tasks(&self, ctx: &Context<'_>) -> Result<Vec<Task>> {
        let (state, _) = asking(ctx)?;
        let all = self
            .list
            .tasks
            .get_or_try_init(|| jobs::tasks(state, &self.list.ids));
        let own = all.await?.iter().filter(|task| task.job == self.job.id);
        let task = |task: &model::Task| Task {
            task: task.clone(),
            job: self.clone(),
        };
        Ok(own.map(task).collect())
    }

    #[graphql(complexity = "8 * child_complexity + 1")]
    async fn artifacts(&self, ctx: &Context<'_>) -> Result<Vec<Artifact>> {
        let (state, _) = asking(ctx)?;
        let all = self
            .list
            .artifacts
            .get_or_try_init(|| jobs::artifacts(state, &self.list.ids));
        let own = all.await?.iter().filter(|made| made.job == self.job.id);
        Ok(own.cloned().map(Artifact).collect())
    }

    /// The job's top-level log file, not associated with any tasks
    #[graphql(directive = access::apply(AccessScope::Logs, AccessKind::Ro))]
    async fn log(&self, ctx: &Context<'_>) -> Result<Option<Log>> {
        let (state, actor) = asking(ctx)?;
        permission::may_have(actor, permission::Wish::Logs, (&*self.job).into())?;
        let log = || Log {
            log: logs::of_job(&self.job),
            url: urls::job_log(&state.config.origin, self.job.id),
        };
        Ok(logs::has_begun(&self.job).then(log))
    }

    /// List of secrets available to this job, or null if they were disabled
    #[graphql(directive = access::apply(AccessScope::Secrets, AccessKind::Ro))]
    async fn secrets(&self, ctx: &Context<'_>) -> Result<Option<Vec<Secret>>> {
        let (_, actor) = asking(ctx)?;
        permission::may_have(actor, permission::Wish::Secrets, (&*self.job).into())?;
        Ok(self.job.secrets.then(Vec::new))
    }

    /// Why the job is as it is: how it ended, or why it was queued again (kiln)
    async fn reason(&self) -> Option<&str> {
        self.job.reason.as_deref()
    }

    /// The last worker that had the job, by its name (kiln)
    async fn worker(&self) -> Option<&str> {
        self.job.worker.as_deref()
    }

    /// Why a queued job is not run yet (kiln)
    #[graphql(complexity = "20")]
    async fn waiting(&self, ctx: &Context<'_>) -> Result<Option<String>> {
        let (state, _) = asking(ctx)?;
        if self.job.status != State::Queued {
            return Ok(None);
        }
        Ok(jobs::waits(state, self.job.id).await?)
    }

    /// Which version of the image the job ran in: a digest in hexadecimal (kiln)
    async fn image_digest(&self) -> Option<&str> {
        self.job.image_digest.as_deref()
    }

    /// What the job asks of a worker, `key=value` each (kiln)
    async fn requirements(&self) -> Vec<String> {
        let text = self.job.requirements.to_string();
        text.split(' ').map(str::to_owned).collect()
    }

    /// How long the job may take, in seconds (kiln)
    async fn deadline(&self) -> i32 {
        i32::try_from(self.job.deadline_seconds).unwrap_or(i32::MAX)
    }

    /// When the last attempt at the job was given to a worker (kiln)
    async fn started(&self) -> Option<Time> {
        self.job.started.map(Time)
    }

    /// When the job ended (kiln)
    async fn ended(&self) -> Option<Time> {
        self.job.ended.map(Time)
    }

    /// The commits at which the manifest's sources were cloned (kiln)
    #[graphql(complexity = "8 * child_complexity + 1")]
    async fn sources(&self, ctx: &Context<'_>) -> Result<Vec<JobSource>> {
        let (state, _) = asking(ctx)?;
        let sources = jobs::sources(state, self.job.id).await?;
        Ok(sources.into_iter().map(Into::into).collect())
    }

    /// The attempts at the job, in order (kiln)
    #[graphql(complexity = "3 * child_complexity + 1")]
    async fn attempts(&self, ctx: &Context<'_>) -> Result<Vec<Attempt>> {
        let (state, _) = asking(ctx)?;
        let attempts = jobs::attempts(state, self.job.id).await?;
        Ok(attempts.into_iter().map(Into::into).collect())
    }
}

/// A cursor for enumerating a list of jobs
///
/// If there are additional results available, the cursor object may be passed
/// back into the same endpoint to retrieve another page. If the cursor is null,
/// there are no remaining results to return.
#[derive(Debug, SimpleObject)]
pub(in super::super) struct JobCursor {
    results: Vec<Job>,
    cursor: Option<Cursor>,
}

impl From<model::JobPage> for JobCursor {
    fn from(page: model::JobPage) -> Self {
        Self {
            results: many(page.jobs),
            cursor: page.next.map(Cursor),
        }
    }
}

/// A task of a job that the one who asks may read.
#[derive(Debug)]
pub(in super::super) struct Task {
    task: model::Task,
    job: Job,
}

/// One named script of a job.
#[Object]
impl Task {
    async fn id(&self) -> i32 {
        self.task.id.0
    }

    async fn created(&self) -> Time {
        Time(self.task.created)
    }

    async fn updated(&self) -> Time {
        Time(self.task.updated)
    }

    async fn name(&self) -> &str {
        &self.task.name
    }

    async fn status(&self) -> TaskStatus {
        self.task.status.into()
    }

    #[graphql(directive = access::apply(AccessScope::Logs, AccessKind::Ro))]
    async fn log(&self, ctx: &Context<'_>) -> Result<Option<Log>> {
        let (state, actor) = asking(ctx)?;
        let job = &*self.job.job;
        permission::may_have(actor, permission::Wish::Logs, job.into())?;
        let log = || Log {
            log: logs::of_task(job, &self.task.name, self.task.status),
            url: urls::task_log(&state.config.origin, job.id, &self.task.name),
        };
        let begun = self.task.status != kiln_core::job::TaskStatus::Pending;
        Ok(begun.then(log))
    }

    async fn job(&self) -> Job {
        self.job.clone()
    }
}

/// A job, or none for one that is not there or not for the one who asks.
pub(in super::super) fn or_none(found: app::Result<model::Job>) -> Result<Option<Job>> {
    match found {
        Ok(job) => Ok(Some(job.into())),
        Err(Error::Hidden(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
