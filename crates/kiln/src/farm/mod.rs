//! The farm as its users' commands see it: a small typed layer over the public
//! GraphQL API.
//!
//! ```text
//! commands/client ─► Farm (one server, one token) ─► kiln_wire::client
//!                     query  logs  downloads
//! ```
//!
//! The token goes to the one server that it is for: of URLs in answers only the
//! path is used.

pub mod api;
pub mod credentials;
pub mod download;
pub mod follow;
pub mod logs;
pub mod rerun;

use std::time::{Duration, Instant};

use http::{Request, StatusCode, header};
use kiln_wire::client::{Answer, Client, ClientError, Options, full, read};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    cli::client::FarmArgs,
    exit::{Exit, Failure},
    ui,
};

/// The longest answer to a query.
const MAX_ANSWER: usize = 16 << 20;
/// How long an answer to a query may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait before each further try at a server that went away.
const TRIES: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// How long a change that may be sent twice is sent again and again, and how often.
const AWAY: Duration = Duration::from_mins(2);
const BETWEEN_TRIES: Duration = Duration::from_secs(3);

/// A farm, as one user.
#[derive(Debug, Clone)]
pub struct Farm {
    client: Client,
    /// Its URL, as the user named it.
    server: String,
}

/// Why a question to the farm came to nothing.
#[derive(Debug)]
pub enum FarmError {
    /// It can't be reached, or is in trouble; to be tried again.
    Away(String),
    /// It said no.
    Refused(String),
}

impl From<FarmError> for Failure {
    fn from(error: FarmError) -> Self {
        match error {
            FarmError::Away(why) => Self::host(why),
            FarmError::Refused(why) => Self::usage(why),
        }
    }
}

impl From<ClientError> for FarmError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Wrong(why) => Self::Refused(why),
            ClientError::Unreachable(why) => Self::Away(why),
        }
    }
}

impl Farm {
    /// The farm that the command line, the environment or `kiln login` names.
    ///
    /// # Errors
    /// When none does, or there is no token for it.
    pub fn of(args: &FarmArgs) -> Result<Self, Failure> {
        Self::with(&credentials::find(args)?)
    }

    /// A farm by what is known of it.
    ///
    /// # Errors
    /// When its URL, or a file, is wrong.
    pub fn with(credentials: &credentials::Credentials) -> Result<Self, Failure> {
        let target = crate::config::target(&credentials.server).map_err(Failure::usage)?;
        let proxy = crate::host::proxy::of_environment(&target);
        let options = Options {
            proxy,
            insecure: credentials.insecure,
            ca: credentials.ca.clone(),
            token: Some(credentials.token.clone()),
        };
        let client = Client::new(&target, &options).map_err(Failure::usage)?;
        Ok(Self {
            client,
            server: credentials.server.trim_end_matches('/').to_owned(),
        })
    }

    /// Its URL.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Asks, and asks again when the server went away. Gives `data`.
    ///
    /// # Errors
    /// [`FarmError`]; a query that has errors is refused, whatever else it gave.
    pub async fn query(&self, query: &str, variables: &Value) -> Result<Value, FarmError> {
        self.send_query(query, variables, None).await
    }

    /// Asks for a change that is made once, however often it has to be sent.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn change_once(
        &self,
        query: &str,
        variables: &Value,
        key: &str,
    ) -> Result<Value, FarmError> {
        self.send_query(query, variables, Some(key)).await
    }

    async fn send_query(
        &self,
        query: &str,
        variables: &Value,
        key: Option<&str>,
    ) -> Result<Value, FarmError> {
        let body = json!({ "query": query, "variables": variables }).to_string();
        let mut tries = TRIES.iter();
        let began = Instant::now();
        let mut said = false;
        loop {
            let asked = timeout(PATIENCE, self.ask(&body, key)).await;
            let answer = asked.unwrap_or_else(|_| {
                Err(FarmError::Away(format!("{} doesn't answer", self.server)))
            });
            match (answer, tries.next()) {
                (Err(FarmError::Away(why)), Some(pause)) => {
                    tracing::info!("{why}; once more");
                    sleep(*pause).await;
                }
                // It may have been done; who gives up now does not know.
                (Err(FarmError::Away(why)), None) if key.is_some() && began.elapsed() < AWAY => {
                    if !std::mem::replace(&mut said, true) {
                        ui::note(&format!("{why}; waiting for it"));
                    }
                    sleep(BETWEEN_TRIES).await;
                }
                (answer, _) => return answer,
            }
        }
    }

    async fn ask(&self, body: &str, key: Option<&str>) -> Result<Value, FarmError> {
        let mut request = Request::post("/query").header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let request = request
            .body(full(body.to_owned()))
            .map_err(|error| FarmError::Refused(error.to_string()))?;
        let answer = self.client.send(request).await?;
        let status = answer.status();
        let text = read(answer.into_body(), MAX_ANSWER).await?;
        answered(&self.server, status, &text)
    }

    /// Gets a path of the farm, or a URL of it, from a byte on.
    ///
    /// # Errors
    /// [`FarmError`] unless the answer is 200 or 206.
    pub async fn get(&self, url: &str, from: Option<u64>) -> Result<Answer, FarmError> {
        let mut request = Request::get(path(url));
        if let Some(from) = from {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let request = request
            .body(kiln_wire::client::empty())
            .map_err(|error| FarmError::Refused(format!("{url}: {error}")))?;
        let asked = timeout(PATIENCE, self.client.send(request)).await;
        let answer =
            asked.map_err(|_| FarmError::Away(format!("{} doesn't answer", self.server)))??;
        let status = answer.status();
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Ok(answer);
        }
        let text = read(answer.into_body(), MAX_ANSWER).await?;
        let what = format!("{} says {}", self.server, sentence(status, &text));
        Err(match status.is_server_error() {
            true => FarmError::Away(what),
            false => FarmError::Refused(what),
        })
    }
}

/// Of a URL what the farm's own server is asked for.
fn path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    match (url.starts_with('/'), rest.find('/')) {
        (false, Some(at)) => &rest[at..],
        (true, _) => url,
        (false, None) => "/",
    }
}

/// What an answer to a query means.
fn answered(server: &str, status: StatusCode, text: &[u8]) -> Result<Value, FarmError> {
    let answer: Option<Value> = serde_json::from_slice(text).ok();
    let errors = answer
        .as_ref()
        .and_then(|answer| answer["errors"].as_array());
    if let Some(errors) = errors.filter(|errors| !errors.is_empty()) {
        let said: Vec<String> = errors.iter().map(said).collect();
        let said = said.join("\nkiln: ");
        return Err(match status.is_server_error() {
            true => FarmError::Away(said),
            false => FarmError::Refused(match status {
                StatusCode::UNAUTHORIZED => {
                    format!("{server}: {said}; `kiln login` with a token that is good")
                }
                _ => said,
            }),
        });
    }
    if status.is_server_error() {
        return Err(FarmError::Away(format!(
            "{server} says {}",
            sentence(status, text)
        )));
    }
    match answer {
        Some(mut answer) if status.is_success() && answer["data"].is_object() => {
            Ok(answer["data"].take())
        }
        _ if status.is_success() => Err(FarmError::Refused(format!(
            "{server} is no builds.sr.ht API: it answers with something else"
        ))),
        _ => Err(FarmError::Refused(format!(
            "{server} says {}",
            sentence(status, text)
        ))),
    }
}

/// One error of GraphQL's, for a person.
fn said(error: &Value) -> String {
    error["message"]
        .as_str()
        .unwrap_or("an error without a message")
        .to_owned()
}

/// A status, and what came with it.
fn sentence(status: StatusCode, text: &[u8]) -> String {
    let value: Option<Value> = serde_json::from_slice(text).ok();
    let message = value.as_ref().and_then(|value| {
        let of_graphql = value["errors"][0]["message"].as_str();
        of_graphql
            .or(value["message"].as_str())
            .or(value["error"].as_str())
    });
    match message {
        Some(message) => format!("{}: {message}", status.as_u16()),
        None => status.to_string(),
    }
}

/// A name for a submission that no other has.
pub fn idempotency_key() -> Result<String, Failure> {
    let mut bytes = [0u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(Failure::host)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// How a farm's job ended, as an exit status.
pub fn exit(job: &api::Job) -> Exit {
    match job.status.as_str() {
        "SUCCESS" => Exit::Success,
        "TIMEOUT" => Exit::Timeout,
        "CANCELLED" => Exit::Lost,
        _ if job.lost() => Exit::Lost,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_url_only_the_path_is_asked_for() {
        assert_eq!(
            path("https://elsewhere.example/query/log/1/log"),
            "/query/log/1/log"
        );
        assert_eq!(
            path("/artifacts/1/x?y=http://z/"),
            "/artifacts/1/x?y=http://z/"
        );
        assert_eq!(path("https://host"), "/");
    }

    fn answer(status: u16, text: &str) -> Result<Value, String> {
        let status = StatusCode::from_u16(status).unwrap();
        answered("http://farm", status, text.as_bytes()).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn errors_are_told_apart_by_whether_to_try_again() {
        assert_eq!(answer(200, r#"{"data":{"x":1}}"#), Ok(json!({"x": 1})));
        for (status, text, expected) in [
            (
                200,
                r#"{"data":null,"errors":[{"message":"no such job"}]}"#,
                "Refused(\"no such job\")",
            ),
            (
                403,
                r#"{"errors":[{"message":"JOBS:RW is missing"}]}"#,
                "Refused(\"JOBS:RW is missing\")",
            ),
            (502, "<html>", "Away(\"http://farm says 502 Bad Gateway\")"),
            (
                404,
                "nothing",
                "Refused(\"http://farm says 404 Not Found\")",
            ),
            (
                200,
                "<html>",
                "Refused(\"http://farm is no builds.sr.ht API: it answers with something else\")",
            ),
        ] {
            assert_eq!(answer(status, text), Err(expected.to_owned()));
        }
    }
}
