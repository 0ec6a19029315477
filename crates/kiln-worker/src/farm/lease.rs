//! One lease: whether it still is ours, and requests under it, each repeated
//! until it is answered or the lease is lost.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use kiln_core::farm::{Fence, JobId, SessionId};
use kiln_wire::{
    client::{Body, Client, ClientError, full, read},
    report::{Refusal, SESSION_HEADER},
};
use tokio::{sync::watch, time::timeout};

use super::backoff::{self, Backoff};

/// How long a server may take to answer a request of some kilobytes.
const ANSWER: Duration = Duration::from_secs(30);
/// The longest answer that is read.
const LONGEST: usize = 64 << 10;

/// What a server said to a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// It is stored.
    Taken(Bytes),
    /// The lease is not ours any more, and nobody is to be told anything.
    Lost,
    /// The log ends here.
    Offset(u64),
    /// It will never take this.
    Refused(Refusal),
}

/// Why there was none.
pub(super) struct NoAnswer(pub String);

/// One lease.
pub(super) struct Lease {
    pub fence: Fence,
    pub job: JobId,
    client: Client,
    session: SessionId,
    lost: watch::Sender<bool>,
    cancel: watch::Sender<bool>,
    begun: AtomicBool,
    started: AtomicBool,
    leaving: AtomicBool,
}

impl Lease {
    pub fn new(client: Client, session: SessionId, fence: Fence, job: JobId) -> Self {
        Self {
            fence,
            job,
            client,
            session,
            lost: watch::Sender::new(false),
            cancel: watch::Sender::new(false),
            begun: AtomicBool::new(false),
            started: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
        }
    }

    /// The lease has ended, by whatever the server decided: the guest must go, and
    /// nothing more is said.
    pub fn lose(&self, why: &str) {
        if !self.lost.send_replace(true) {
            let (job, fence) = (self.job.0, self.fence.0);
            if self.leaving.load(Ordering::Acquire) {
                tracing::debug!(job, fence, "job {job} is over for the server: {why}");
            } else {
                tracing::info!(job, fence, "job {job} is not this worker's any more: {why}");
            }
        }
        self.stop();
    }

    pub fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    /// The last word is about to be said: that the lease ends is no news then, and
    /// may be heard before the answer.
    pub fn leaves(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// Waits until it is lost.
    pub async fn lost(&self) {
        let mut lost = self.lost.subscribe();
        // The sender lives as long as this does.
        let _ = lost.wait_for(|lost| *lost).await;
    }

    /// The guest must go.
    pub fn stop(&self) {
        self.cancel.send_replace(true);
    }

    /// Waits until the guest must go.
    pub async fn stopped(&self) {
        let mut cancel = self.cancel.subscribe();
        // As above.
        let _ = cancel.wait_for(|cancel| *cancel).await;
    }

    /// Becomes true when the guest must go.
    pub fn cancelled(&self) -> watch::Receiver<bool> {
        self.cancel.subscribe()
    }

    /// Whether the server may know that a task was about to start.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    pub fn begins(&self) {
        self.begun.store(true, Ordering::Release);
    }

    /// Whether its guest is there, so that the host's memory shows it.
    pub fn has_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    pub fn guest_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Posts JSON until it is answered.
    pub async fn post(&self, what: &str, json: impl Into<Bytes>) -> Answer {
        let json = json.into();
        let json_type = Some("application/json");
        self.report(Method::POST, what, json_type, &json).await
    }

    /// Sends these bytes until they are answered.
    pub async fn report(
        &self,
        method: Method,
        what: &str,
        content_type: Option<&str>,
        bytes: &Bytes,
    ) -> Answer {
        let mut backoff = Backoff::of_server();
        let sent = async {
            loop {
                let body = full(bytes.clone());
                let once = self.once(method.clone(), what, content_type, body, ANSWER);
                match once.await {
                    Ok(answer) => return answer,
                    Err(why) => self.again(what, &why, &mut backoff).await,
                }
            }
        };
        tokio::select! {
            biased;
            () = self.lost() => Answer::Lost,
            answer = sent => answer,
        }
    }

    /// Waits before something is tried again.
    pub async fn again(&self, what: &str, why: &NoAnswer, backoff: &mut Backoff) {
        let (job, fence, why) = (self.job.0, self.fence.0, &why.0);
        tracing::debug!(job, fence, what, "job {job} can't report yet: {why}");
        backoff::wait(backoff).await;
    }

    /// Sends a request once.
    ///
    /// # Errors
    /// [`NoAnswer`]: it may be tried again.
    pub async fn once(
        &self,
        method: Method,
        what: &str,
        content_type: Option<&str>,
        body: Body,
        limit: Duration,
    ) -> Result<Answer, NoAnswer> {
        let path = format!("/worker/lease/{}/{what}", self.fence);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(SESSION_HEADER, self.session.as_str());
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request
            .body(body)
            .map_err(|error| NoAnswer(error.to_string()))?;
        let exchange = async {
            let answer = self.client.send(request).await?;
            let status = answer.status();
            Ok((status, read(answer.into_body(), LONGEST).await?))
        };
        match timeout(limit, exchange).await {
            Ok(Ok((status, body))) => self.understand(status, body),
            Ok(Err(ClientError::Wrong(why) | ClientError::Unreachable(why))) => Err(NoAnswer(why)),
            Err(_) => Err(NoAnswer("the server doesn't answer".to_owned())),
        }
    }

    fn understand(&self, status: StatusCode, body: Bytes) -> Result<Answer, NoAnswer> {
        if status.is_success() {
            return Ok(Answer::Taken(body));
        }
        let refusal = serde_json::from_slice(&body).unwrap_or_else(|_| Refusal {
            error: "unknown".to_owned(),
            message: format!("the server says {status}"),
            stored: None,
        });
        let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
        if !status.is_client_error() || later.contains(&status) {
            return Err(NoAnswer(refusal.message));
        }
        match (refusal.error.as_str(), refusal.stored) {
            ("offset", Some(stored)) => return Ok(Answer::Offset(stored)),
            ("lease-lost" | "unauthorized", _) => {}
            _ if status == StatusCode::UNAUTHORIZED => {}
            _ => return Ok(Answer::Refused(refusal)),
        }
        self.lose(&refusal.message);
        Ok(Answer::Lost)
    }
}

/// `?a=b&c=d`, with everything escaped that could mean something else.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    let mut query = String::new();
    for (key, value) in pairs {
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(key);
        query.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    query.push(char::from(byte));
                }
                _ => query.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_just_what_was_meant() {
        assert_eq!(
            query(&[("a", "x/y z&c=ä"), ("b", "1")]),
            "?a=x%2Fy%20z%26c%3D%C3%A4&b=1"
        );
        assert_eq!(query(&[]), "");
    }
}
