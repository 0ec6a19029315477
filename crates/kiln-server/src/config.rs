//! What the server is told.

use std::time::Duration;

/// What the server is told. The binary reads files and the environment.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where logs and artifacts are.
    pub objects: kiln_objects::Config,
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
}
