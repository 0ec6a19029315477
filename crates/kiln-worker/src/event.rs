//! What happens in a job, one [`Event`] each: the lines of `kiln run --json`.
//!
//! Every event is one JSON object on one line. The fields of all of them are
//! `v` (the [`VERSION`]), `at` (milliseconds since the job started) and `event`
//! (which one; its other fields are those of [`Body`]'s variant). A reader must
//! ignore events and fields that it doesn't know; a change that such a reader
//! would not survive raises the version.
//!
//! ```json
//! {"v":1,"at":0,"event":"job-started","job":0,"image":"debian/bookworm","tasks":["build"],"deadline_ms":2700000}
//! {"v":1,"at":0,"event":"step-started","step":"start"}
//! {"v":1,"at":1210,"event":"step-ended","step":"start","ok":true,"duration_ms":1210}
//! {"v":1,"at":1290,"event":"source","index":0,"directory":"kiln","commit":"5c3d…"}
//! {"v":1,"at":1300,"event":"task","task":"build","status":"running"}
//! {"v":1,"at":1400,"event":"log","task":"build","text":"hello\n"}
//! {"v":1,"at":1401,"event":"log","task":"build","text":"\ufffd","bytes":"/w=="}
//! {"v":1,"at":1500,"event":"task","task":"build","status":"success","duration_ms":200,"exit":0}
//! {"v":1,"at":1600,"event":"artifact","index":0,"path":"out.tar","file":"out.tar","size":10240,"sha256":"9f86…"}
//! {"v":1,"at":1610,"event":"job-ended","status":"success","cause":"finished","duration_ms":1610}
//! ```

use std::time::Duration;

use kiln_core::job::{JobStatus, TaskStatus};
use serde::{Serialize, Serializer};

use crate::{Cause, LogId};

/// The version of the events that this kiln writes.
pub const VERSION: u32 = 1;

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// [`VERSION`].
    pub v: u32,
    /// Time since the job started; milliseconds in JSON.
    #[serde(serialize_with = "milliseconds")]
    pub at: Duration,
    /// What happened.
    #[serde(flatten)]
    pub body: Body,
}

impl Event {
    /// An event of this version.
    #[must_use]
    pub fn new(at: Duration, body: Body) -> Self {
        Self {
            v: VERSION,
            at,
            body,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Body {
    /// The job is running. The first event.
    JobStarted {
        /// Its number.
        job: u32,
        /// The image's name.
        image: String,
        /// Its tasks, in order. Each will have a [`Body::Task`] of a terminal
        /// status.
        tasks: Vec<String>,
        /// How long it may take.
        #[serde(rename = "deadline_ms", serialize_with = "milliseconds")]
        deadline: Duration,
    },
    /// A step begins. Steps with nothing to do have no events.
    StepStarted {
        /// Which.
        step: Step,
    },
    /// The step that began last has ended.
    StepEnded {
        /// Which.
        step: Step,
        /// Whether it succeeded; what failed is in [`Body::JobEnded`].
        ok: bool,
        /// How long it took.
        #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
        duration: Duration,
    },
    /// A source was cloned.
    Source {
        /// Its place in the manifest, from 0.
        index: usize,
        /// Where it is in the guest.
        directory: String,
        /// The commit that was checked out.
        commit: String,
    },
    /// A task has a new status.
    Task {
        /// Its name.
        task: String,
        /// The status.
        status: TaskStatus,
        /// Its script's exit status, when it ended by itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        exit: Option<u32>,
        /// How long it took; absent for a task that did not run or still runs.
        #[serde(
            rename = "duration_ms",
            serialize_with = "maybe_milliseconds",
            skip_serializing_if = "Option::is_none"
        )]
        duration: Option<Duration>,
    },
    /// A log has grown. Never given to [`Reporter::event`](crate::Reporter):
    /// a reporter that wants it makes it from what is appended.
    Log {
        /// The task whose log it is; absent for the job's own.
        #[serde(skip_serializing_if = "Option::is_none")]
        task: Option<String>,
        /// The bytes as text; what is no UTF-8 is U+FFFD.
        text: String,
        /// The bytes in base64, only when `text` is not all of them.
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<String>,
    },
    /// An artifact was kept.
    Artifact(Artifact),
    /// Something that the owner should know; also in the job's log.
    Warning {
        /// A sentence.
        message: String,
    },
    /// The job has ended. The last event.
    JobEnded {
        /// How.
        status: JobStatus,
        /// Why, for programs.
        #[serde(flatten)]
        cause: Cause,
        /// Why, for the owner; absent when there is nothing to say.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// How long it took.
        #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
        duration: Duration,
    },
}

impl Body {
    /// A log has grown by these bytes.
    #[must_use]
    pub fn log(log: &LogId, bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let lossy = text.as_bytes() != bytes;
        Self::Log {
            task: log.task().map(str::to_owned),
            bytes: lossy.then(|| kiln_core::base64::encode(bytes)),
            text: text.into_owned(),
        }
    }
}

/// An artifact that was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Artifact {
    /// Its place in the manifest, from 0.
    pub index: usize,
    /// Its path as the manifest has it.
    pub path: String,
    /// Its file's name in the job's directory for artifacts.
    pub file: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

/// A part of a job that is no task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// What can be seen to be wrong before there is a guest.
    Prepare,
    /// Making the guest.
    Start,
    /// The tasks' scripts, the environment and the secrets.
    Settings,
    /// Package repositories.
    Repositories,
    /// Packages.
    Packages,
    /// Clones of the sources.
    Sources,
    /// Collecting the artifacts.
    Artifacts,
}

impl Step {
    /// Its name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Start => "start",
            Self::Settings => "settings",
            Self::Repositories => "repositories",
            Self::Packages => "packages",
            Self::Sources => "sources",
            Self::Artifacts => "artifacts",
        }
    }
}

fn milliseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[expect(clippy::ref_option, reason = "serde calls it with a reference")]
fn maybe_milliseconds<S: Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    milliseconds(&time.unwrap_or_default(), serializer)
}
