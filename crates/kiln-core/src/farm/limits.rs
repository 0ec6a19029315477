//! How long what users and workers send may be. What is over is refused with a
//! sentence that names field and limit.

/// A job's note, in bytes.
pub const NOTE: usize = 4096;
/// A job's tags.
pub const TAGS: usize = 16;
/// One tag, in bytes.
pub const TAG: usize = 64;
/// A job's tasks: all are written when it is submitted, and named in one report when it
/// ends.
pub const TASKS: usize = 1000;
/// A user's name, in bytes.
pub const USERNAME: usize = 30;
/// An address of mail, in bytes (RFC 5321).
pub const EMAIL: usize = 254;
/// A worker's labels besides arch and images, or a job's `--require`.
pub const LABELS: usize = 32;
/// A label's key or value, in bytes.
pub const LABEL: usize = 128;
/// Images that one worker offers.
pub const IMAGES: usize = 1024;
/// A URL that a trigger asks.
pub const URL: usize = 2048;
/// Jobs in a group.
pub const GROUP: usize = 100;
/// Triggers of a group.
pub const TRIGGERS: usize = 16;
/// An `Idempotency-Key`, in bytes.
pub const IDEMPOTENCY_KEY: usize = 128;
/// Attempts at one job.
pub const ATTEMPTS: u32 = 3;
/// A lease, in seconds.
pub const LEASE_SECONDS: u64 = 30;
/// A worker renews so often, in seconds.
pub const RENEW_SECONDS: u64 = 5;
/// Who was not heard of for so long, in seconds, gets no jobs: three renewals did not come.
pub const SILENT_SECONDS: u64 = 3 * RENEW_SECONDS;
/// How many kinds of jobs, by what they ask of a worker, one share may have queued at
/// once: a pass looks at each kind.
pub const KINDS: u32 = 256;
/// One append to a log, in bytes.
pub const APPEND: usize = 1 << 20;
/// How long a job waits that no worker could serve, in days.
pub const UNSERVED_DAYS: u64 = 7;
