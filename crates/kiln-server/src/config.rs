//! What the server is told.

use std::time::Duration;

use kiln_bus::Bus;

/// How long what jobs leave is kept. What a job that has not ended leaves is kept in any case.
#[derive(Debug, Clone, Default)]
pub struct Retention {
    /// Logs; for ever if it does not say.
    pub logs: Option<Duration>,
    /// Artifacts; for ever if it does not say.
    pub artifacts: Option<Duration>,
    /// How many bytes of logs and artifacts one owner's jobs may keep.
    pub of_owner: Option<u64>,
}

/// What the server is told. The binary reads files and the environment.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where logs and artifacts are.
    pub objects: kiln_objects::Config,
    /// The way to the farm's other servers.
    pub bus: Bus,
    /// The public URL, without a slash at the end: `https://builds.example.org`.
    pub origin: String,
    /// How the farm calls itself.
    pub site_name: String,
    /// The host by which people reach guests by SSH: `Job.runner`.
    pub runner: String,
    /// The user of that: `version.settings.sshUser`.
    pub ssh_user: String,
    /// How long a job may take.
    pub job_timeout: Duration,
    /// How many jobs of one share may run at once.
    pub share_cap: Option<u32>,
    /// The largest artifact, in bytes.
    pub artifact_limit: u64,
    /// How long what jobs leave is kept.
    pub retention: Retention,
}
