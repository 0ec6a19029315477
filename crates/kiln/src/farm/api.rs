//! The questions that commands ask, and what of the answers they use.

use kiln_core::farm::lease::is_the_farms;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Farm, FarmError};

/// A job, as far as commands look at it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Its number.
    pub id: i32,
    /// Its state, as the API has it.
    pub status: String,
    /// Why it is as it is.
    pub reason: Option<String>,
    /// Why it waits.
    pub waiting: Option<String>,
    /// Its own log, once there is one.
    pub log: Option<Log>,
    /// Its tasks, in order.
    pub tasks: Vec<Task>,
}

/// Where a log is.
#[derive(Debug, Clone, Deserialize)]
pub struct Log {
    /// Its URL.
    #[serde(rename = "fullURL")]
    pub full_url: String,
}

/// A task.
#[derive(Debug, Clone, Deserialize)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// Its state.
    pub status: String,
    /// Its log, once there is one.
    pub log: Option<Log>,
}

/// An artifact.
#[derive(Debug, Clone, Deserialize)]
pub struct Artifact {
    /// Its path in the guest.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Where it is; nowhere when it is kept no more.
    pub url: Option<String>,
    /// Its digest.
    pub sha256: Option<String>,
}

/// What [`Job`] is read from.
const FOLLOWED: &str =
    "id status reason waiting log { fullURL } tasks { name status log { fullURL } }";

/// What `kiln show` shows.
const SHOWN: &str = "id created updated status reason waiting note tags visibility image imageDigest runner worker \
    owner { canonicalName } log { fullURL } tasks { name status log { fullURL } } \
    artifacts { path size sha256 url } sources { index commit } \
    attempts { number worker started begun ended reason } group { id jobs { id status } }";

/// What a list shows of each job.
const LISTED: &str = "id created updated status note tags visibility image tasks { name status }";

impl Job {
    /// Whether it has ended.
    pub fn ended(&self) -> bool {
        !matches!(self.status.as_str(), "PENDING" | "QUEUED" | "RUNNING")
    }

    /// Whether it failed and it was the farm's fault.
    pub fn lost(&self) -> bool {
        let reason = self.reason.as_deref().unwrap_or_default();
        self.status == "FAILED" && is_the_farms(reason)
    }
}

/// A number, or the end of a job's URL.
pub fn job_id(word: &str) -> Result<i32, FarmError> {
    let last = word
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(word);
    let id = last.trim_start_matches('#').parse().ok();
    id.filter(|id| *id > 0).ok_or_else(|| {
        FarmError::Refused(format!(
            "`{word}` is no job; write its number, or its URL like https://builds.example.org/~user/job/123"
        ))
    })
}

/// The farm of a job's URL: all that stands before `/~user/job/N`.
pub fn server(word: &str) -> Option<&str> {
    let (server, _) = word.split_once("/~")?;
    server.contains("://").then_some(server)
}

fn is(what: &str, id: i32, found: Value) -> Result<Value, FarmError> {
    match found {
        Value::Null => Err(FarmError::Refused(format!(
            "there is no {what} {id}, or it is not yours"
        ))),
        found => Ok(found),
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, FarmError> {
    serde_json::from_value(value)
        .map_err(|error| FarmError::Refused(format!("the farm's answer makes no sense: {error}")))
}

impl Farm {
    /// The number of a job of this farm. A URL of another farm's job names none
    /// of this one's; what a socket's farm calls itself is not known here.
    ///
    /// # Errors
    /// When the word is no job, or another farm's.
    pub fn job_id(&self, word: &str) -> Result<i32, FarmError> {
        let other = server(word).filter(|other| {
            self.server().contains("://") && !other.eq_ignore_ascii_case(self.server())
        });
        match other {
            None => job_id(word),
            Some(other) => Err(FarmError::Refused(format!(
                "{word} is a job of another farm than {here}; give --server {other}, or the job's number if both are the same",
                here = self.server()
            ))),
        }
    }

    async fn job_with(&self, fields: &str, id: i32) -> Result<Value, FarmError> {
        let query = format!("query($id: Int!) {{ job(id: $id) {{ {fields} }} }}");
        let mut data = self.query(&query, &json!({ "id": id })).await?;
        is("job", id, data["job"].take())
    }

    /// A job, for following it.
    pub async fn job(&self, id: i32) -> Result<Job, FarmError> {
        read(self.job_with(FOLLOWED, id).await?)
    }

    /// A job, for showing it.
    pub async fn shown_job(&self, id: i32) -> Result<Value, FarmError> {
        self.job_with(SHOWN, id).await
    }

    /// Some of a job's fields.
    pub async fn job_fields(&self, id: i32, fields: &str) -> Result<Value, FarmError> {
        self.job_with(fields, id).await
    }

    /// A job's artifacts: as the API has them, and read.
    pub async fn artifacts(&self, id: i32) -> Result<(Value, Vec<Artifact>), FarmError> {
        let mut job = self
            .job_with("artifacts { path size sha256 url }", id)
            .await?;
        let raw = job["artifacts"].take();
        Ok((raw.clone(), read(raw)?))
    }

    /// Jobs, newest first: one's own, or another user's public ones.
    pub async fn jobs(&self, user: Option<&str>, limit: usize) -> Result<Vec<Value>, FarmError> {
        let page = format!("jobs(cursor: $cursor) {{ results {{ {LISTED} }} cursor }}");
        let query = match user {
            None => format!("query($cursor: Cursor) {{ {page} }}"),
            Some(_) => format!(
                "query($cursor: Cursor, $user: String!) {{ userByName(username: $user) {{ {page} }} }}"
            ),
        };
        let (mut found, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let name = user.map(|user| user.trim_start_matches('~'));
            let mut data = self
                .query(&query, &json!({ "cursor": cursor, "user": name }))
                .await?;
            let mut page = match (user, data["userByName"].is_null()) {
                (Some(user), true) => {
                    return Err(FarmError::Refused(format!("there is no user {user}")));
                }
                (Some(_), false) => data["userByName"]["jobs"].take(),
                (None, _) => data["jobs"].take(),
            };
            if let Value::Array(jobs) = page["results"].take() {
                found.extend(jobs);
            }
            cursor = page["cursor"].take();
            if cursor.is_null() || found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
        }
    }

    /// Submits a job: `id`, `status` and `owner` of it.
    pub async fn submit(&self, variables: &Value, key: &str) -> Result<Value, FarmError> {
        const SUBMIT: &str = "mutation($manifest: String!, $tags: [String!], $note: String, $secrets: Boolean, \
            $execute: Boolean, $visibility: Visibility, $requirements: [String!]) { \
            submit(manifest: $manifest, tags: $tags, note: $note, secrets: $secrets, execute: $execute, \
            visibility: $visibility, requirements: $requirements) \
            { id created status note tags visibility image owner { canonicalName } } }";
        let mut data = self.change_once(SUBMIT, variables, key).await?;
        Ok(data["submit"].take())
    }

    /// Cancels a job.
    pub async fn cancel(&self, id: i32) -> Result<Value, FarmError> {
        let query = "mutation($id: Int!) { cancel(jobId: $id) { id status reason } }";
        let mut data = self.query(query, &json!({ "id": id })).await?;
        is("job", id, data["cancel"].take())
    }

    /// Starts a pending job.
    pub async fn start(&self, id: i32) -> Result<Value, FarmError> {
        let query = "mutation($id: Int!) { start(jobID: $id) { id status } }";
        let mut data = self.query(query, &json!({ "id": id })).await?;
        is("job", id, data["start"].take())
    }

    /// Makes a group.
    pub async fn group(&self, variables: &Value) -> Result<Value, FarmError> {
        let query = "mutation($jobs: [Int!]!, $triggers: [TriggerInput!], $execute: Boolean, $note: String) { \
            createGroup(jobIds: $jobs, triggers: $triggers, execute: $execute, note: $note) \
            { id created note jobs { id status } } }";
        let mut data = self.query(query, variables).await?;
        Ok(data["createGroup"].take())
    }

    /// A job's page, where people look at it.
    pub fn job_url(&self, owner: &str, id: i32) -> String {
        match self.server().starts_with("unix:") {
            true => format!("{owner}/job/{id}"),
            false => format!("{}/{owner}/job/{id}", self.server()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_named_by_its_number_or_its_url() {
        for word in [
            "7",
            "#7",
            "https://b.example/~me/job/7",
            "http://b.example/~me/job/7/",
        ] {
            assert_eq!(job_id(word).unwrap(), 7, "{word}");
        }
        for word in ["", "x", "0", "-1", "99999999999", "https://b.example/~me"] {
            assert!(job_id(word).is_err(), "{word}");
        }
    }

    #[test]
    fn the_farm_is_what_stands_before_the_user() {
        let named = server("https://b.example/~me/job/3");
        assert_eq!(named, Some("https://b.example"));
        assert_eq!(server("3"), None);
    }
}
