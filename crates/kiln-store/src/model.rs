//! What the store takes and gives: not its rows, and not the API's objects.

use kiln_core::{
    farm::{
        ArtifactId, Fence, Grants, GroupId, JobId, Labels, LogName, Requirements, SessionId,
        TaskId, TokenId, UserId, Visibility, WorkerId,
    },
    job::{JobStatus, TaskStatus},
};

pub use kiln_core::farm::{LeaseKey, wait::WaitReason};

/// A moment by the database's clock: microseconds since 1970, UTC.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub i64);

/// SHA-256 of a token. The token itself is stored nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

/// Which of a session's sockets speaks for it. Each hello of the session is given
/// another one, on whichever server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voice(pub i64);

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub id: UserId,
    /// Its name, without `~`.
    pub username: String,
    /// Its address.
    pub email: String,
    /// Whether it may see and change what is others'.
    pub admin: bool,
    /// When it was made.
    pub created: Moment,
    /// When it was last changed.
    pub updated: Moment,
    /// Whether its tokens are refused.
    pub revoked: bool,
}

/// A personal token, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its number.
    pub id: TokenId,
    /// Whose.
    pub user: UserId,
    /// What it may do.
    pub grants: Grants,
    /// When it was made.
    pub created: Moment,
    /// When it ends, if it does.
    pub expires: Option<Moment>,
    /// Whether it was taken back.
    pub revoked: bool,
}

/// A worker's registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its number.
    pub id: WorkerId,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Moment,
    /// Whether its token was taken back.
    pub revoked: bool,
    /// Why its sessions are given no jobs, when somebody paused it.
    pub paused: Option<String>,
}

/// One start of a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// Its name.
    pub id: SessionId,
    /// Whose token it has.
    pub worker: WorkerId,
    /// kiln's version.
    pub version: String,
    /// When it first said hello.
    pub started: Moment,
    /// When it last said anything.
    pub seen: Moment,
    /// How many jobs it may run at once.
    pub slots: u32,
    /// How many it would have now: see the wire's `State::capacity`.
    pub capacity: u32,
    /// What it is.
    pub labels: Labels,
    /// Whether it takes jobs.
    pub mood: Mood,
    /// Why it takes fewer jobs than it has slots.
    pub short_of: Option<String>,
    /// The leases that it has.
    pub leases: Vec<(Fence, JobId)>,
}

/// Whether a session takes jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mood {
    /// It does.
    Ready,
    /// It ends when its jobs have ended.
    Draining,
    /// It takes none until it is well; why.
    Unwell(String),
}

/// A job to be.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Whose.
    pub owner: UserId,
    /// What fairness counts by: absent for the owner's own, else a sub-share's
    /// name below it.
    pub share: Option<String>,
    /// Higher comes first within the share.
    pub priority: i32,
    /// The manifest's text.
    pub manifest: String,
    /// What it asks of a worker.
    pub requirements: Requirements,
    /// The names of its tasks, in order.
    pub tasks: Vec<String>,
    /// The owner's words.
    pub note: Option<String>,
    /// The owner's tags.
    pub tags: Vec<String>,
    /// Who sees it.
    pub visibility: Visibility,
    /// Whether the manifest's secrets are wanted.
    pub secrets: bool,
    /// Whether it is queued at once.
    pub execute: bool,
    /// How long it may take, in seconds.
    pub deadline_seconds: u64,
    /// The client's name for this very submission, and a hash of what was
    /// submitted.
    pub idempotency: Option<(String, [u8; 32])>,
}

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// Whose.
    pub owner: UserId,
    /// Its state.
    pub status: JobStatus,
    /// The manifest's text. Absent in lists: see [`crate::Store::manifest`].
    pub manifest: Option<String>,
    /// What it asks of a worker.
    pub requirements: Requirements,
    /// Within its share.
    pub priority: i32,
    /// The owner's words.
    pub note: Option<String>,
    /// The owner's tags.
    pub tags: Vec<String>,
    /// Who sees it.
    pub visibility: Visibility,
    /// Whether the manifest's secrets are wanted.
    pub secrets: bool,
    /// The group that it is in.
    pub group: Option<GroupId>,
    /// How long it may take, in seconds.
    pub deadline_seconds: u64,
    /// When it was submitted.
    pub created: Moment,
    /// When its state last changed.
    pub updated: Moment,
    /// When it was last queued.
    pub queued: Option<Moment>,
    /// When its last attempt was given to a worker.
    pub started: Option<Moment>,
    /// When it ended.
    pub ended: Option<Moment>,
    /// Why it is as it is, for the owner: how it ended, or why it was queued again.
    pub reason: Option<String>,
    /// How many attempts there were.
    pub attempts: u32,
    /// The last attempt's worker, by its name.
    pub worker: Option<String>,
    /// The version of the image that the last attempt ran.
    pub image_digest: Option<String>,
    /// When its logs were removed, its tasks' too.
    pub logs_removed: Option<Moment>,
}

/// A task of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its number.
    pub id: TaskId,
    /// Whose.
    pub job: JobId,
    /// Its name.
    pub name: String,
    /// Its state.
    pub status: TaskStatus,
    /// When it was made.
    pub created: Moment,
    /// When its state last changed.
    pub updated: Moment,
}

/// A file that a job made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its number.
    pub id: ArtifactId,
    /// Whose.
    pub job: JobId,
    /// Its place in the manifest, from 0.
    pub index: u32,
    /// Its path in the guest.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// When it was kept.
    pub created: Moment,
    /// Whether its bytes are gone.
    pub pruned: bool,
}

/// A source as it was cloned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its place in the manifest, from 0.
    pub index: u32,
    /// The commit that was checked out.
    pub commit: String,
}

/// One try at a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its number in the farm.
    pub fence: Fence,
    /// Its number in the job, from 1.
    pub number: u32,
    /// The worker's name.
    pub worker: String,
    /// When the worker was given it.
    pub started: Moment,
    /// When its first task could start.
    pub begun: Option<Moment>,
    /// When it ended.
    pub ended: Option<Moment>,
    /// Why it ended.
    pub reason: Option<String>,
}

/// A group of jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub id: GroupId,
    /// Whose.
    pub owner: UserId,
    /// When it was made.
    pub created: Moment,
    /// The owner's words.
    pub note: Option<String>,
    /// What happens when all its jobs have ended.
    pub triggers: Vec<Trigger>,
}

/// Something that happens when a group has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// When.
    pub condition: Condition,
    /// What.
    pub action: TriggerAction,
}

/// When a trigger runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// All jobs succeeded.
    Success,
    /// One did not.
    Failure,
    /// Whatever happened.
    Always,
}

/// What a trigger does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TriggerAction {
    /// Sends mail.
    Email {
        /// To whom.
        to: String,
        /// And to whom.
        cc: Option<String>,
        /// As the answer to this message.
        in_reply_to: Option<String>,
    },
    /// Asks a URL.
    Webhook {
        /// Which.
        url: String,
    },
}

/// A lease that has not ended, with what its worker needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// Its fence.
    pub fence: Fence,
    /// Which attempt at the job this is, from 1.
    pub attempt: u32,
    /// Whether a task may have started.
    pub begun: bool,
    /// When the worker was given it.
    pub started: Moment,
    /// The job.
    pub job: Job,
    /// The owner's name, without `~`.
    pub owner_name: String,
}

/// A job that is about to be given to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The job.
    pub job: JobId,
    /// Which attempt at the job this will be, from 1.
    pub attempt: u32,
    /// The worker's name.
    pub worker: String,
    /// The manifest's text.
    pub manifest: String,
}

/// What was changed for jobs: what listeners are told, after the commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Jobs whose state, or a task's state, changed.
    pub jobs: Vec<JobId>,
    /// Jobs that ended.
    pub ended: Vec<JobId>,
    /// Sessions that were given leases or lost some.
    pub sessions: Vec<SessionId>,
    /// Whether there may be something to assign now.
    pub assign: bool,
    /// The last lines of jobs and attempts that the farm ended, which logs that have begun
    /// get. Where logs are rows, they were written with the change.
    pub lines: Vec<(LogName, String)>,
}

/// Something that is reported under a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// A task may start now: see [`crate::Store::begun`].
    Begun,
    /// See [`crate::Store::set_task`].
    Task(String, TaskStatus),
    /// See [`crate::Store::add_source`].
    Source(u32, String),
    /// See [`crate::Store::set_digest`].
    Digest(String),
    /// See [`crate::Store::end`].
    End {
        /// A terminal status.
        status: JobStatus,
        /// Why, for the owner.
        reason: Option<String>,
        /// Each task's terminal status.
        tasks: Vec<(String, TaskStatus)>,
    },
}

/// What came of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reported {
    /// What it changed.
    pub changed: Changed,
    /// With the end of a job: when its last attempt had begun, and when it ended.
    pub ran: Option<(Moment, Moment)>,
}

/// A page of jobs, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// The number after which the next page begins, if there is one.
    pub next: Option<JobId>,
}

/// A queued job and why it waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// The job.
    pub job: Job,
    /// The owner's name, without `~`.
    pub owner_name: String,
    /// Why.
    pub reason: WaitReason,
}

/// What a session says when it connects.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// Its name.
    pub session: SessionId,
    /// kiln's version.
    pub version: String,
    /// How many jobs it may run at once.
    pub slots: u32,
    /// Its state, images and all.
    pub state: SessionState,
    /// The leases that it has.
    pub leases: Vec<Fence>,
}

/// A session renews its leases.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// Its name.
    pub session: SessionId,
    /// Whose it says to be, if that is to be checked.
    pub token: Option<TokenHash>,
    /// The leases that it has.
    pub leases: Vec<Fence>,
}

/// What became of a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewed {
    /// Its leases are renewed, but for these, which are not its own, or have ended.
    Lost(Vec<Fence>),
    /// The token is not its worker's any more.
    TakenBack,
    /// There is no such session, or it has ended.
    Gone,
}

/// What may change about a session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionState {
    /// See [`Session::capacity`].
    pub capacity: u32,
    /// Images and labels.
    pub labels: Labels,
    /// Whether it takes jobs.
    pub mood: Mood,
    /// Why it takes fewer jobs than it has slots.
    pub short_of: Option<String>,
}

/// An artifact to be.
#[derive(Debug, Clone)]
pub struct NewArtifact {
    /// Its place in the manifest, from 0.
    pub index: u32,
    /// Its path in the guest.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// An image that a worker once offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownImage {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub arch: String,
    /// Whether a worker that is here offers it.
    pub here: bool,
}

/// How much there is of everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Jobs that wait.
    pub queued: u64,
    /// Jobs that run.
    pub running: u64,
    /// Jobs ever submitted.
    pub submitted: u64,
    /// Sessions that are here.
    pub sessions: u64,
    /// The slots of these.
    pub slots: u64,
}

/// A job that has ended, and the logs that it may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The job.
    pub job: JobId,
    /// When.
    pub ended: Moment,
    /// Its own, and those of the tasks that ran.
    pub logs: Vec<LogName>,
}

/// A job whose logs were packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// The job.
    pub job: JobId,
    /// How many bytes its logs take.
    pub logs: u64,
}

/// What ended jobs keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    /// All artifacts of a job.
    Artifacts,
    /// All its logs.
    Logs,
}

/// What is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Whose.
    pub job: JobId,
    /// What.
    pub what: What,
    /// The objects that go with it, or the begins of their keys.
    pub objects: Vec<String>,
}

/// What rows of some jobs refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Referred {
    /// Objects that hold logs, or pieces of them, by their keys, and how many bytes each has.
    pub objects: Vec<(String, u64)>,
    /// Artifacts that were not removed, by job and place, and how many bytes each has.
    pub artifacts: Vec<(JobId, u32, u64)>,
    /// Logs that there may be.
    pub logs: Vec<LogName>,
    /// Those of them that there must be: of jobs that were given to a worker.
    pub begun: Vec<LogName>,
}

/// A piece of a log, to be.
#[derive(Debug, Clone)]
pub struct NewChunk {
    /// Where it begins: just where the log ends.
    pub start: u64,
    /// Bytes; more than none.
    pub length: u64,
    /// SHA-256 of them, in hexadecimal.
    pub sha256: String,
    /// The key of the object that holds just these bytes.
    pub object: String,
    /// Whether the last of them ends no line.
    pub mid_line: bool,
}

/// A piece of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where it begins.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// When they were stored; the epoch when nobody noted that.
    pub created: Moment,
    /// What they are, or where.
    pub held: Held,
}

/// How a piece of a log is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// In an object.
    Object {
        /// Its key.
        key: String,
        /// SHA-256 of its bytes, in hexadecimal.
        sha256: String,
    },
    /// Here.
    Line(String),
    /// In an object with the whole log, packed.
    Packed {
        /// Its key.
        key: String,
        /// Its own bytes.
        length: u64,
    },
}

/// A packed log, to be.
#[derive(Debug, Clone)]
pub struct NewPacked {
    /// Where the log ends.
    pub stored: u64,
    /// The object's key.
    pub object: String,
    /// The object's own bytes.
    pub length: u64,
}

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is the log's end now, which is here.
    Stored(u64),
    /// The log ends here, and not where the piece begins.
    Elsewhere(u64),
}
