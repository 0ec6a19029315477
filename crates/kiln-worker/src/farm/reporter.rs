//! The reporter of a job that a farm gave: everything goes into the spool, but
//! for `begun`, which is answered by the server.

use std::sync::Arc;

use async_trait::async_trait;
use kiln_wire::report;

use super::{
    lease::{Answer, Lease},
    spool::{Spool, Voice},
};
use crate::{Body, Event, LogId, ReportError, Reporter, Step};

pub(super) struct LeaseReporter {
    pub lease: Arc<Lease>,
    pub spool: Arc<Spool>,
    /// The image's version.
    pub digest: String,
}

impl LeaseReporter {
    /// What a server wants to know of it.
    fn wanted(&self, body: Body) -> Option<report::Event> {
        match body {
            Body::Task { task, status, .. } => Some(report::Event::Task { task, status }),
            Body::Source { index, commit, .. } => Some(report::Event::Source {
                index: u32::try_from(index).ok()?,
                commit,
            }),
            Body::StepEnded {
                step: Step::Start,
                ok: true,
                duration,
            } => {
                self.lease.guest_started();
                Some(report::Event::Started {
                    digest: self.digest.clone(),
                    settle_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
                })
            }
            _ => None,
        }
    }
}

#[async_trait]
impl Reporter for LeaseReporter {
    async fn event(&self, event: Event) -> Result<(), ReportError> {
        let Some(event) = self.wanted(event.body) else {
            return Ok(());
        };
        let json = serde_json::to_vec(&event).map_err(std::io::Error::other)?;
        self.spool.event(&json).await
    }

    async fn append(&self, log: &LogId, bytes: &[u8]) -> Result<(), ReportError> {
        self.spool.append(log, bytes, Voice::Guest).await
    }

    async fn say(&self, log: &LogId, line: &[u8]) -> Result<(), ReportError> {
        self.spool.append(log, line, Voice::Kiln).await
    }

    /// Without those in tasks' logs, whose first line is the server's and may not
    /// come before the task is known to run.
    async fn narrate(&self, log: &LogId, line: &[u8]) -> Result<(), ReportError> {
        match log {
            LogId::Job => self.say(log, line).await,
            LogId::Task(_) => Ok(()),
        }
    }

    async fn begun(&self) -> Result<(), ReportError> {
        self.lease.begins();
        match self.lease.post("begun", "").await {
            Answer::Taken(_) => Ok(()),
            Answer::Lost => Err(ReportError::Refused),
            Answer::Offset(_) => Err(ReportError::Farm("it has no offset".to_owned())),
            Answer::Refused(refusal) => Err(ReportError::Farm(refusal.message)),
        }
    }
}
