//! What happened in a farm, as somebody saw who is no part of it.
//!
//! | who | tells |
//! |---|---|
//! | clients | [`Submitted`](Event::Submitted), [`Acknowledged`](Event::Acknowledged), [`CancelAsked`](Event::CancelAsked), [`Cancelled`](Event::Cancelled), [`Seen`](Event::Seen), [`Read`](Event::Read), [`ReadWhole`](Event::ReadWhole), [`Listed`](Event::Listed) |
//! | the wire between workers and servers, at the servers' end | [`Begun`](Event::Begun), [`Stored`](Event::Stored), [`Ended`](Event::Ended) |
//! | guests, by a way that is not the farm's | [`TaskStarted`](Event::TaskStarted), [`Produced`](Event::Produced), [`TaskEnded`](Event::TaskEnded) |
//! | the database | [`Claimed`](Event::Claimed), [`Released`](Event::Released) |
//! | whoever makes faults | [`FaultBegan`](Event::FaultBegan), [`FaultEnded`](Event::FaultEnded), [`FaultsOver`](Event::FaultsOver), [`Left`](Event::Left) |
//!
//! Moments are microseconds of one clock, which no fault touches. What was asked and
//! answered has both moments: an answer is only older than a question that was put after
//! it had come.
//!
//! No two lines that guests produce may be the same: then one that is there twice was
//! written twice.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    farm::{Fence, JobId},
    job::JobStatus,
};

/// What happened, in the order of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    entries: Vec<Entry>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: u64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What may happen. `asked` is the moment of the question to which this is the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A client begins to submit a job, and will do so until there is an answer.
    Submitted {
        /// The submission's `Idempotency-Key`, which no other submission has.
        key: String,
        /// What fairness counts it by.
        share: String,
        /// What it asks of a worker. Jobs of one kind can be run by the same workers.
        kind: String,
        /// Its tasks, each of which is to run.
        tasks: Vec<String>,
        /// How it ends when nothing comes between.
        expected: JobStatus,
    },
    /// The farm has the job.
    Acknowledged {
        /// The submission.
        key: String,
        /// The job.
        job: JobId,
        /// When it was asked for the time that was answered.
        asked: u64,
    },
    /// The farm's list of jobs has this one, after all was over.
    Listed {
        /// The submission that the job says to be of.
        key: String,
        /// The job.
        job: JobId,
    },
    /// A session was given the job.
    Claimed {
        /// The job.
        job: JobId,
        /// Under which fence.
        fence: Fence,
        /// Which attempt it is, from 1.
        attempt: u32,
        /// The worker's name.
        worker: String,
    },
    /// An attempt has ended.
    Released {
        /// The job.
        job: JobId,
        /// The attempt's fence.
        fence: Fence,
    },
    /// A server told a worker that its job has begun.
    Begun {
        /// The job.
        job: JobId,
        /// The lease.
        fence: Fence,
        /// When the worker asked.
        asked: u64,
    },
    /// A task's script runs.
    TaskStarted {
        /// The job.
        job: JobId,
        /// Whose guest it is.
        fence: Fence,
        /// The task.
        task: String,
    },
    /// A task's script came to its end by itself.
    TaskEnded {
        /// The job.
        job: JobId,
        /// Whose guest it is.
        fence: Fence,
        /// The task.
        task: String,
    },
    /// A task's script has written whole lines.
    Produced {
        /// The job.
        job: JobId,
        /// Whose guest it is.
        fence: Fence,
        /// The task.
        task: String,
        /// The lines.
        bytes: Text,
    },
    /// A server told a worker that these bytes of a log are stored.
    Stored {
        /// The job.
        job: JobId,
        /// The lease.
        fence: Fence,
        /// The task; empty for the job's own log.
        task: String,
        /// Where they are.
        offset: u64,
        /// The bytes.
        bytes: Text,
        /// When the worker asked.
        asked: u64,
    },
    /// A server told a worker that its job has ended.
    Ended {
        /// The job.
        job: JobId,
        /// The lease.
        fence: Fence,
        /// How, as the worker said.
        status: JobStatus,
        /// When the worker asked.
        asked: u64,
    },
    /// Somebody read a part of a log.
    Read {
        /// The job.
        job: JobId,
        /// The task; empty for the job's own log.
        task: String,
        /// Where the part begins.
        offset: u64,
        /// What was there.
        bytes: Text,
    },
    /// Somebody read a log to its end, after all was over.
    ReadWhole {
        /// The job.
        job: JobId,
        /// The task; empty for the job's own log.
        task: String,
        /// All of it.
        bytes: Text,
    },
    /// A client begins to ask for a job's end.
    CancelAsked {
        /// The job.
        job: JobId,
    },
    /// The farm has cancelled the job.
    Cancelled {
        /// The job.
        job: JobId,
    },
    /// Somebody asked how a job is.
    Seen {
        /// The job.
        job: JobId,
        /// How it was; nothing when the farm knew of no such job.
        status: Option<JobStatus>,
        /// When it was asked.
        asked: u64,
    },
    /// A fault begins.
    FaultBegan {
        /// Its number.
        fault: u32,
        /// Its kind.
        what: String,
        /// The parts that may not do what they should, by name. Only a fault that touches
        /// a worker may cost jobs, and only those which that worker has.
        touches: Vec<String>,
    },
    /// A fault ends.
    FaultEnded {
        /// Its number.
        fault: u32,
    },
    /// There are no more faults.
    FaultsOver,
    /// Something is left of work that is over: a guest, say.
    Left {
        /// What.
        what: String,
    },
}

impl Event {
    /// The job that it speaks of.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        match self {
            Self::Acknowledged { job, .. }
            | Self::Listed { job, .. }
            | Self::Claimed { job, .. }
            | Self::Released { job, .. }
            | Self::Begun { job, .. }
            | Self::TaskStarted { job, .. }
            | Self::TaskEnded { job, .. }
            | Self::Produced { job, .. }
            | Self::Stored { job, .. }
            | Self::Ended { job, .. }
            | Self::Read { job, .. }
            | Self::ReadWhole { job, .. }
            | Self::CancelAsked { job }
            | Self::Cancelled { job }
            | Self::Seen { job, .. } => Some(*job),
            Self::Submitted { .. }
            | Self::FaultBegan { .. }
            | Self::FaultEnded { .. }
            | Self::FaultsOver
            | Self::Left { .. } => None,
        }
    }
}

impl History {
    /// Puts entries of several witnesses in order; those of one moment stay as they are.
    #[must_use]
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by_key(|entry| entry.at);
        Self { entries }
    }

    /// The entries.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// One line of JSON for each.
    #[must_use]
    pub fn to_lines(&self) -> String {
        let mut text = String::new();
        for entry in &self.entries {
            // Texts and numbers alone: there is nothing that JSON can't say.
            text += &serde_json::to_string(entry).unwrap_or_default();
            text.push('\n');
        }
        text
    }

    /// Reads [`Self::to_lines`].
    ///
    /// # Errors
    /// At the first line that is no entry.
    pub fn from_lines(text: &str) -> Result<Self, serde_json::Error> {
        let entries: Result<Vec<Entry>, _> = text.lines().map(serde_json::from_str).collect();
        Ok(Self::new(entries?))
    }
}

/// Bytes of a log. In JSON each is one character, so that a text is read as one.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Text(pub Vec<u8>);

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.0.into_iter().map(char::from).collect()
    }
}

impl TryFrom<String> for Text {
    type Error = std::char::TryFromCharError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.chars()
            .map(u8::try_from)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(bytes: Vec<u8>, at: u64, offset: u64) {
            let event = Event::Read {
                job: JobId(7),
                task: "build".to_owned(),
                offset,
                bytes: Text(bytes),
            };
            let history = History::new(vec![Entry { at, event }]);
            let read = History::from_lines(&history.to_lines());
            prop_assert_eq!(read.unwrap(), history);
        }
    }

    #[test]
    fn witnesses_are_put_in_order() {
        let entry = |at, fault| Entry {
            at,
            event: Event::FaultEnded { fault },
        };
        let history = History::new(vec![entry(2, 1), entry(1, 2), entry(2, 3)]);
        let moments: Vec<u64> = history.entries().iter().map(|entry| entry.at).collect();
        assert_eq!(moments, [1, 2, 2]);
        assert_eq!(history.entries()[2].event, Event::FaultEnded { fault: 3 });
    }

    #[test]
    fn a_line_is_for_people_too() {
        let event = Event::Seen {
            job: JobId(3),
            status: Some(JobStatus::Running),
            asked: 5,
        };
        let text = History::new(vec![Entry { at: 9, event }]).to_lines();
        let line = r#"{"at":9,"event":"seen","job":3,"status":"running","asked":5}"#;
        assert_eq!(text.trim_end(), line);
    }
}
