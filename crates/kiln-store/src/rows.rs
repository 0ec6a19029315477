//! Rows and what they mean.

use kiln_core::{
    farm::{
        Grants, Labels, Requirements, SessionId, TaskId, UserId, Visibility, WorkerId,
        attempt::{self, Outcome},
    },
    job::{JobStatus, TaskStatus},
};
use sqlx::{Row as _, any::AnyRow};

use crate::{
    StoreError,
    model::{
        Artifact, Attempt, Condition, Group, Job, Lease, Moment, Mood, Session, Source, Task,
        Token, TokenHash, Trigger, TriggerAction, User, Worker,
    },
};

/// What [`job`] reads, with `j` for the job, `c` for its class, `w` for its worker.
macro_rules! job_columns {
    () => {
        concat!($crate::rows::listed_columns!(), ", j.recipe")
    };
}
pub(crate) use job_columns;

/// The same of jobs in lists: without their manifests, each of which may have a mebibyte.
macro_rules! listed_columns {
    () => {
        "j.id, j.owner_id, j.group_id, j.status, j.priority, j.visibility, j.tags, \
         j.note, j.secrets, j.deadline_seconds, j.created, j.updated, j.queued, j.started, \
         j.ended, j.reason, j.attempts, j.image_digest, j.logs_removed, c.requirements, \
         w.name AS worker"
    };
}
pub(crate) use listed_columns;

/// Where [`job_columns`] are.
macro_rules! job_tables {
    () => {
        "jobs j JOIN classes c ON c.id = j.class_id LEFT JOIN workers w ON w.id = j.worker_id"
    };
}
pub(crate) use job_tables;

type Read<T> = Result<T, StoreError>;

/// A row that this kiln did not write.
pub(crate) fn strange(what: &str) -> StoreError {
    StoreError::Unavailable(format!("a row has a strange {what}").into())
}

/// A number that fits a smaller type.
pub(crate) fn number<T: TryFrom<i64>>(row: &AnyRow, column: &str) -> Read<T> {
    let value: i64 = row.try_get(column)?;
    T::try_from(value).map_err(|_| strange(column))
}

fn optional_number<T: TryFrom<i64>>(row: &AnyRow, column: &str) -> Read<Option<T>> {
    let value: Option<i64> = row.try_get(column)?;
    let fit = |value| T::try_from(value).map_err(|_| strange(column));
    value.map(fit).transpose()
}

/// An unsigned number as databases have them. What is larger is cut off.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn moment(row: &AnyRow, column: &str) -> Read<Moment> {
    Ok(Moment(row.try_get(column)?))
}

pub(crate) fn optional_moment(row: &AnyRow, column: &str) -> Read<Option<Moment>> {
    let value: Option<i64> = row.try_get(column)?;
    Ok(value.map(Moment))
}

pub(crate) fn truth(row: &AnyRow, column: &str) -> Read<bool> {
    let value: i64 = row.try_get(column)?;
    Ok(value != 0)
}

/// A hash in hexadecimal.
pub(crate) fn hex(TokenHash(hash): TokenHash) -> String {
    digits(&hash)
}

pub(crate) fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn job_status(row: &AnyRow) -> Read<JobStatus> {
    let text: String = row.try_get("status")?;
    JobStatus::ALL
        .into_iter()
        .find(|status| status.as_str() == text)
        .ok_or_else(|| strange("status"))
}

/// What reports under an attempt need to know of it.
pub(crate) fn life(row: &AnyRow) -> Read<attempt::Attempt> {
    let outcome: Option<String> = row.try_get("outcome")?;
    let outcome = outcome.map(|text| {
        Outcome::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
            .ok_or_else(|| strange("outcome"))
    });
    Ok(attempt::Attempt {
        begun: optional_moment(row, "begun")?.is_some(),
        outcome: outcome.transpose()?,
    })
}

pub(crate) fn task_status(row: &AnyRow) -> Read<TaskStatus> {
    let text: String = row.try_get("status")?;
    TaskStatus::ALL
        .into_iter()
        .find(|status| status.as_str() == text)
        .ok_or_else(|| strange("status"))
}

pub(crate) fn requirements(row: &AnyRow) -> Read<Requirements> {
    let text: String = row.try_get("requirements")?;
    Requirements::parse(&text).ok_or_else(|| strange("requirements"))
}

pub(crate) fn session_id(row: &AnyRow, column: &str) -> Read<SessionId> {
    let text: String = row.try_get(column)?;
    SessionId::try_from(text).map_err(|_| strange(column))
}

fn json<T: serde::de::DeserializeOwned>(row: &AnyRow, column: &str) -> Read<T> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|_| strange(column))
}

pub(crate) fn labels(row: &AnyRow) -> Read<Labels> {
    json(row, "labels")
}

/// JSON for a column. None of ours can fail: they have texts as keys.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Read<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Unavailable(error.into()))
}

pub(crate) fn user(row: &AnyRow) -> Read<User> {
    Ok(User {
        id: UserId(number(row, "id")?),
        username: row.try_get("username")?,
        email: row.try_get("email")?,
        admin: truth(row, "admin")?,
        created: moment(row, "created")?,
        updated: moment(row, "updated")?,
        revoked: truth(row, "revoked")?,
    })
}

pub(crate) fn grants(row: &AnyRow) -> Read<Grants> {
    let text: String = row.try_get("grants")?;
    text.parse().map_err(|_| strange("grants"))
}

pub(crate) fn token(row: &AnyRow) -> Read<Token> {
    Ok(Token {
        id: kiln_core::farm::TokenId(number(row, "id")?),
        user: UserId(number(row, "user_id")?),
        grants: grants(row)?,
        created: moment(row, "created")?,
        expires: optional_moment(row, "expires")?,
        revoked: truth(row, "revoked")?,
    })
}

pub(crate) fn worker(row: &AnyRow) -> Read<Worker> {
    Ok(Worker {
        id: WorkerId(number(row, "id")?),
        name: row.try_get("name")?,
        created: moment(row, "created")?,
        revoked: truth(row, "revoked")?,
        paused: row.try_get("paused")?,
    })
}

/// The session, with no leases yet.
pub(crate) fn session(row: &AnyRow) -> Read<Session> {
    Ok(Session {
        id: session_id(row, "id")?,
        worker: WorkerId(number(row, "worker_id")?),
        version: row.try_get("version")?,
        started: moment(row, "started")?,
        seen: moment(row, "seen")?,
        slots: number(row, "slots")?,
        capacity: number(row, "capacity")?,
        labels: labels(row)?,
        mood: mood(row)?,
        short_of: row.try_get("short_of")?,
        leases: Vec::new(),
    })
}

/// A mood as two columns.
pub(crate) fn mood_columns(mood: &Mood) -> (&'static str, Option<&str>) {
    match mood {
        Mood::Ready => ("ready", None),
        Mood::Draining => ("draining", None),
        Mood::Unwell(reason) => ("unwell", Some(reason)),
    }
}

fn mood(row: &AnyRow) -> Read<Mood> {
    let text: String = row.try_get("mood")?;
    let reason: Option<String> = row.try_get("mood_reason")?;
    match text.as_str() {
        "ready" => Ok(Mood::Ready),
        "draining" => Ok(Mood::Draining),
        "unwell" => Ok(Mood::Unwell(reason.unwrap_or_default())),
        _ => Err(strange("mood")),
    }
}

/// Of [`job_columns`].
pub(crate) fn job(row: &AnyRow) -> Read<Job> {
    Ok(Job {
        manifest: Some(row.try_get("recipe")?),
        ..listed_job(row)?
    })
}

/// Of [`listed_columns`].
pub(crate) fn listed_job(row: &AnyRow) -> Read<Job> {
    let visibility: String = row.try_get("visibility")?;
    Ok(Job {
        id: kiln_core::farm::JobId(number(row, "id")?),
        owner: UserId(number(row, "owner_id")?),
        status: job_status(row)?,
        manifest: None,
        requirements: requirements(row)?,
        priority: number(row, "priority")?,
        note: row.try_get("note")?,
        tags: json(row, "tags")?,
        visibility: Visibility::parse(&visibility).ok_or_else(|| strange("visibility"))?,
        secrets: truth(row, "secrets")?,
        group: optional_number(row, "group_id")?.map(kiln_core::farm::GroupId),
        deadline_seconds: number(row, "deadline_seconds")?,
        created: moment(row, "created")?,
        updated: moment(row, "updated")?,
        queued: optional_moment(row, "queued")?,
        started: optional_moment(row, "started")?,
        ended: optional_moment(row, "ended")?,
        reason: row.try_get("reason")?,
        attempts: number(row, "attempts")?,
        worker: row.try_get("worker")?,
        image_digest: row.try_get("image_digest")?,
        logs_removed: optional_moment(row, "logs_removed")?,
    })
}

pub(crate) fn task(row: &AnyRow) -> Read<Task> {
    Ok(Task {
        id: TaskId(number(row, "id")?),
        job: kiln_core::farm::JobId(number(row, "job_id")?),
        name: row.try_get("name")?,
        status: task_status(row)?,
        created: moment(row, "created")?,
        updated: moment(row, "updated")?,
    })
}

pub(crate) fn artifact(row: &AnyRow) -> Read<Artifact> {
    Ok(Artifact {
        id: kiln_core::farm::ArtifactId(number(row, "id")?),
        job: kiln_core::farm::JobId(number(row, "job_id")?),
        index: number(row, "place")?,
        path: row.try_get("path")?,
        size: number(row, "size")?,
        sha256: row.try_get("sha256")?,
        created: moment(row, "created")?,
        pruned: truth(row, "pruned")?,
    })
}

pub(crate) fn source(row: &AnyRow) -> Read<Source> {
    Ok(Source {
        index: number(row, "place")?,
        commit: row.try_get("revision")?,
    })
}

/// With the worker's name as `worker`.
pub(crate) fn attempt(row: &AnyRow) -> Read<Attempt> {
    Ok(Attempt {
        fence: kiln_core::farm::Fence(number(row, "id")?),
        number: number(row, "number")?,
        worker: row.try_get("worker")?,
        started: moment(row, "granted")?,
        begun: optional_moment(row, "begun")?,
        ended: optional_moment(row, "ended")?,
        reason: row.try_get("reason")?,
    })
}

/// Of this job with the attempt's and the owner's.
pub(crate) fn lease(row: &AnyRow, job: Job) -> Read<Lease> {
    Ok(Lease {
        fence: kiln_core::farm::Fence(number(row, "fence")?),
        attempt: number(row, "number")?,
        begun: optional_moment(row, "begun")?.is_some(),
        started: moment(row, "granted")?,
        job,
        owner_name: row.try_get("owner_name")?,
    })
}

/// The group, with no triggers yet.
pub(crate) fn group(row: &AnyRow) -> Read<Group> {
    Ok(Group {
        id: kiln_core::farm::GroupId(number(row, "id")?),
        owner: UserId(number(row, "owner_id")?),
        created: moment(row, "created")?,
        note: row.try_get("note")?,
        triggers: Vec::new(),
    })
}

/// A trigger as two columns.
pub(crate) fn trigger_columns(trigger: &Trigger) -> Read<(&'static str, String)> {
    let happens = match trigger.condition {
        Condition::Success => "success",
        Condition::Failure => "failure",
        Condition::Always => "always",
    };
    let action = match &trigger.action {
        TriggerAction::Email {
            to,
            cc,
            in_reply_to,
        } => serde_json::json!({ "email": { "to": to, "cc": cc, "in_reply_to": in_reply_to } }),
        TriggerAction::Webhook { url } => serde_json::json!({ "webhook": { "url": url } }),
    };
    Ok((happens, to_json(&action)?))
}

pub(crate) fn trigger(row: &AnyRow) -> Read<Trigger> {
    let happens: String = row.try_get("happens")?;
    let condition = match happens.as_str() {
        "success" => Condition::Success,
        "failure" => Condition::Failure,
        "always" => Condition::Always,
        _ => return Err(strange("trigger")),
    };
    let action: serde_json::Value = json(row, "action")?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let action = if let Some(email) = action.get("email") {
        TriggerAction::Email {
            to: text(&email["to"]).ok_or_else(|| strange("trigger"))?,
            cc: text(&email["cc"]),
            in_reply_to: text(&email["in_reply_to"]),
        }
    } else {
        TriggerAction::Webhook {
            url: text(&action["webhook"]["url"]).ok_or_else(|| strange("trigger"))?,
        }
    };
    Ok(Trigger { condition, action })
}
