//! The farm as a client sees it, one try at a time.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use kiln_core::{farm::JobId, job::JobStatus};
use kiln_wire::client::{Client, Options, Target, empty, full, read};
use serde_json::{Value, json};
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest answer that is read.
const LONGEST: usize = 64 << 20;

/// Why a question came to nothing.
#[derive(Debug)]
pub enum No {
    /// It is to be asked again.
    Away,
    /// The farm says no, with this code.
    Refused(String, String),
}

/// What was asked for, or why not.
pub type Answer<T> = Result<T, No>;

/// An owner.
#[derive(Clone)]
pub struct Owner(Client);

impl Owner {
    pub fn new(address: SocketAddr, token: &str) -> Self {
        let options = Options {
            token: Some(token.to_owned()),
            ..Options::default()
        };
        let client = Client::new(&Target::Url(format!("http://{address}")), &options);
        Self(client.expect("a client"))
    }

    async fn ask(&self, query: &str, variables: Value, key: Option<&str>) -> Answer<Value> {
        let body = json!({ "query": query, "variables": variables }).to_string();
        let mut request = Request::post("/query").header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let request = request.body(full(body)).expect("a request");
        let asked = async {
            let answer = self.0.send(request).await.map_err(|_| No::Away)?;
            let status = answer.status();
            let text = read(answer.into_body(), LONGEST)
                .await
                .map_err(|_| No::Away)?;
            understand(status, &text)
        };
        timeout(PATIENCE, asked).await.unwrap_or(Err(No::Away))
    }

    /// The job that this submission made, now or before.
    pub async fn submit(&self, manifest: &str, key: &str) -> Answer<JobId> {
        let query = "mutation($manifest: String!, $note: String) { \
            submit(manifest: $manifest, note: $note) { id } }";
        let variables = json!({ "manifest": manifest, "note": key });
        let data = self.ask(query, variables, Some(key)).await?;
        let id = data["submit"]["id"]
            .as_i64()
            .and_then(|id| id.try_into().ok());
        Ok(JobId(id.expect("a job has a number")))
    }

    pub async fn cancel(&self, job: JobId) -> Answer<()> {
        let query = "mutation($id: Int!) { cancel(jobId: $id) { id } }";
        self.ask(query, json!({ "id": job.0 }), None)
            .await
            .map(drop)
    }

    /// How a job is; nothing when there is none.
    pub async fn status(&self, job: JobId) -> Answer<Option<JobStatus>> {
        let query = "query($id: Int!) { job(id: $id) { status } }";
        let data = match self.ask(query, json!({ "id": job.0 }), None).await {
            Err(No::Refused(code, _)) if code == "NOT_FOUND" => return Ok(None),
            answer => answer?,
        };
        let status = data["job"]["status"].as_str().map(str::to_lowercase);
        let status = status.map(|status| serde_json::from_value(status.into()));
        Ok(status.map(|status| status.expect("a status")))
    }

    /// All jobs: their numbers and notes.
    pub async fn jobs(&self) -> Answer<Vec<(JobId, String)>> {
        let query =
            "query($cursor: Cursor) { jobs(cursor: $cursor) { results { id note } cursor } }";
        let (mut all, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let page = self.ask(query, json!({ "cursor": cursor }), None).await?;
            let page = &page["jobs"];
            for job in page["results"].as_array().into_iter().flatten() {
                let id = job["id"].as_i64().and_then(|id| id.try_into().ok());
                let note = job["note"].as_str().unwrap_or_default().to_owned();
                all.push((JobId(id.expect("a number")), note));
            }
            cursor = page["cursor"].clone();
            if cursor.is_null() {
                return Ok(all);
            }
        }
    }

    /// All of a log that is stored; nothing when there is none yet.
    pub async fn log(&self, job: JobId, task: &str) -> Answer<Option<Vec<u8>>> {
        let request = Request::get(path(job, task))
            .body(empty())
            .expect("a request");
        let asked = async {
            let answer = self.0.send(request).await.map_err(|_| No::Away)?;
            let status = answer.status();
            let text = read(answer.into_body(), LONGEST)
                .await
                .map_err(|_| No::Away)?;
            match status {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(Some(text.to_vec())),
                StatusCode::NOT_FOUND => Ok(None),
                status if status.is_server_error() => Err(No::Away),
                status => Err(No::Refused(status.to_string(), String::new())),
            }
        };
        timeout(PATIENCE, asked).await.unwrap_or(Err(No::Away))
    }

    /// Follows a log from a byte on: tells of each piece, with its place, until the stream
    /// ends. Whether it ended well. Early is also what is not stored yet.
    pub async fn follow(
        &self,
        (job, task): (JobId, &str),
        (from, early): (u64, bool),
        mut tell: impl FnMut(u64, Bytes),
    ) -> Answer<()> {
        let how = if early { "follow=early" } else { "follow" };
        let path = format!("{}?{how}", path(job, task));
        let mut at = from;
        let range = format!("bytes={at}-");
        let request = Request::get(path).header(header::RANGE, range);
        let request = request.body(empty()).expect("a request");
        let asked = timeout(PATIENCE, self.0.send(request)).await;
        let answer = asked.map_err(|_| No::Away)?.map_err(|_| No::Away)?;
        match answer.status() {
            StatusCode::OK => {}
            status if status.is_server_error() => return Err(No::Away),
            status => return Err(No::Refused(status.to_string(), String::new())),
        }
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            let Ok(bytes) = frame.map_err(|_| No::Away)?.into_data() else {
                continue;
            };
            let length = bytes.len() as u64;
            tell(at, bytes);
            at += length;
        }
        Ok(())
    }
}

fn path(job: JobId, task: &str) -> String {
    if task.is_empty() {
        format!("/query/log/{job}/log")
    } else {
        format!("/query/log/{job}/{task}/log")
    }
}

fn understand(status: StatusCode, text: &[u8]) -> Answer<Value> {
    let Ok(mut answer) = serde_json::from_slice::<Value>(text) else {
        // What is before the servers says it.
        return Err(No::Away);
    };
    if status.is_server_error() {
        return Err(No::Away);
    }
    let error = &answer["errors"][0];
    if error.is_object() {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (code, message) = (&error["extensions"]["code"], &error["message"]);
        return Err(No::Refused(text(code), text(message)));
    }
    Ok(answer["data"].take())
}
