//! What a job is to the step engine.

use std::{fmt, path::PathBuf, time::Duration};

use kiln_core::{
    guest_files,
    manifest::{EnvName, Manifest, SecretRef},
};
use kiln_vm::machine::{GuestSpec, Login};

/// One job, with everything resolved that needs the host's files or a server.
#[derive(Debug)]
pub struct Job {
    /// What to do.
    pub manifest: Manifest,
    /// The job's number: 0 for a run without a farm.
    pub id: u32,
    /// Where the job can be looked at; the guest's `JOB_URL`.
    pub url: String,
    /// Variables from outside the manifest; they replace those of the same
    /// name and come after the others.
    pub environment: Vec<(EnvName, String)>,
    /// A secret for each reference of the manifest.
    pub secrets: Vec<Secret>,
    /// Sources that are not cloned from where the manifest says.
    pub overlays: Vec<Overlay>,
    /// An existing directory for the artifacts. Files of the same names are
    /// replaced.
    pub artifacts_dir: PathBuf,
    /// How long the job may take, the guest's start included.
    pub deadline: Duration,
    /// How much of everything it may make.
    pub limits: Limits,
    /// The guest to run it in.
    pub guest: GuestSpec,
}

/// A file that every guest of a job is given, all of them of mode 755.
pub(crate) struct GuestFile {
    /// Relative to the home directory.
    pub(crate) path: String,
    /// What is in it.
    pub(crate) text: String,
}

impl Job {
    /// The tasks' scripts, then the environment.
    pub(crate) fn files(&self, login: &Login) -> Vec<GuestFile> {
        let preamble = login.preamble.as_deref();
        let tasks = self.manifest.tasks().iter().map(|task| GuestFile {
            path: guest_files::task_path(&task.name),
            text: guest_files::task_script(task, preamble),
        });
        let mut files: Vec<GuestFile> = tasks.collect();
        files.push(GuestFile {
            path: guest_files::BUILDENV.to_owned(),
            text: self.buildenv(),
        });
        files
    }

    /// The secrets as the manifest asks for them, without those that it lacks.
    pub(crate) fn secrets_in_order(&self) -> impl Iterator<Item = (&str, &Secret)> {
        let names = self.manifest.secrets().iter().map(SecretRef::as_str);
        names.filter_map(|name| Some((name, self.secret(name)?)))
    }

    /// The secret for a reference of the manifest.
    pub(crate) fn secret(&self, name: &str) -> Option<&Secret> {
        self.secrets.iter().find(|secret| secret.reference == name)
    }

    fn buildenv(&self) -> String {
        let replaced = |name: &EnvName| self.environment.iter().any(|(other, _)| other == name);
        // Not only overwritten: what is a list stays one under a new value.
        let mut manifest = self.manifest.clone();
        if let Some(variables) = &mut manifest.environment {
            variables.retain(|variable| !replaced(&variable.name));
        }
        let given = self.environment.iter();
        let mut extra: Vec<(String, String)> = given
            .map(|(name, value)| (name.to_string(), value.clone()))
            .collect();
        extra.push(("CI_NAME".into(), "sourcehut".into()));
        extra.push(("JOB_ID".into(), self.id.to_string()));
        extra.push(("JOB_URL".into(), self.url.clone()));
        guest_files::buildenv(&manifest, &extra)
    }
}

/// How much a job may make, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of one log. What is more is read and dropped.
    pub log: u64,
    /// Of all the job's logs.
    pub logs: u64,
    /// Of one artifact.
    pub artifact: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            log: 256 << 20,
            logs: 1 << 30,
            artifact: 1 << 30,
        }
    }
}

/// A secret that the job may have.
#[derive(Debug, Clone)]
pub struct Secret {
    /// How the manifest names it.
    pub reference: String,
    /// Its UUID; the name of an SSH key's file in the guest.
    pub uuid: String,
    /// What it is.
    pub kind: SecretKind,
}

/// What a secret is and where it goes. `Debug` never shows the bytes.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretKind {
    /// `~/.ssh/<uuid>`, mode 600; the job's first is also `~/.ssh/id_rsa`.
    SshKey(Vec<u8>),
    /// Given to `gpg --import`.
    PgpKey(Vec<u8>),
    /// A file.
    File {
        /// Absolute, or below the home directory; `~/` is understood.
        path: String,
        /// Permission bits.
        mode: u32,
        /// What is in it.
        bytes: Vec<u8>,
    },
}

impl fmt::Debug for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SshKey(_) => f.write_str("SshKey(…)"),
            Self::PgpKey(_) => f.write_str("PgpKey(…)"),
            Self::File { path, mode, .. } => write!(f, "File({path:?}, {mode:o}, …)"),
        }
    }
}

/// A working copy of the host in place of one source: `kiln run --here`.
///
/// The guest clones the bundle, calls the manifest's URL `origin`, ignores the
/// source's `#ref`, removes the deleted paths and unpacks the changes.
#[derive(Debug, Clone)]
pub struct Overlay {
    /// Index among the manifest's sources; the source must be git's.
    pub source: usize,
    /// A git bundle whose `HEAD` is what to check out.
    pub bundle: PathBuf,
    /// A tar of the files that differ from `HEAD`, if any do.
    pub changes: Option<PathBuf>,
    /// Paths that `HEAD` has and the working copy has not, relative to it.
    pub deleted: Vec<PathBuf>,
}
