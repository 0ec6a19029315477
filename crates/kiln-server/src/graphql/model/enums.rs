//! Enumerations. No value may be added to those of builds.sr.ht: its clients stop
//! on what they don't know.

use async_graphql::Enum;

use super::directives::scopehelp;

/// What a grant is about.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum AccessScope {
    #[graphql(directive = scopehelp::apply("profile information".into()))]
    Profile,
    #[graphql(directive = scopehelp::apply("build jobs".into()))]
    Jobs,
    #[graphql(directive = scopehelp::apply("build logs".into()))]
    Logs,
    #[graphql(directive = scopehelp::apply("stored secrets".into()))]
    Secrets,
}

/// How much of it.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum AccessKind {
    #[graphql(name = "RO", directive = scopehelp::apply("read".into()))]
    Ro,
    #[graphql(name = "RW", directive = scopehelp::apply("read and write".into()))]
    Rw,
}

/// The state of a job.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "kiln_core::job::JobStatus")]
pub(in super::super) enum JobStatus {
    Pending,
    Queued,
    Running,
    Success,
    Failed,
    Timeout,
    Cancelled,
}

/// The state of a task.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "kiln_core::job::TaskStatus")]
pub(in super::super) enum TaskStatus {
    Pending,
    Running,
    Success,
    Failed,
    Skipped,
}

/// Who sees a job.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "kiln_core::farm::Visibility")]
pub(in super::super) enum Visibility {
    Public,
    Unlisted,
    Private,
}

/// When a trigger runs.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "kiln_store::model::Condition")]
pub(in super::super) enum TriggerCondition {
    Success,
    Failure,
    Always,
}

/// What a trigger does.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum TriggerType {
    Email,
    Webhook,
}

/// What a webhook tells of.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum WebhookEvent {
    JobCreated,
    JobUpdated,
}
