//! The manifest: what a user writes in `.build.yml`.
//!
//! [`parse`] reads it. The rules are those of builds.sr.ht, whose two validators disagree here
//! and there: what either of them takes is taken, what both refuse is refused, and each
//! refusal says where, what and what to do. Upstream ignores unknown keys; so does this, with
//! a warning.
//!
//! The way of a manifest: bytes → `text` (encoding, tabs) → `yaml` (a tree within limits)
//! → `fields` and the modules of single fields (values of their own types) → [`Manifest`] →
//! `json` (the normalised form) or `print` (YAML again).
//!
//! What is *absent*: nothing here knows which images, secrets or packages exist. Nothing
//! recurses deeper than the limit of nesting, so that no text can exhaust the stack.

mod diagnostic;
mod environment;
mod fields;
mod flat;
mod json;
mod print;
mod read;
mod source;
mod syntax;
mod tasks;
mod text;
mod triggers;
mod values;
mod yaml;

pub use diagnostic::{Diagnostic, Position, Problem, Severity};
pub use environment::{EnvName, EnvValue, Variable};
pub(crate) use flat::flat_mapping;
pub use source::{Scm, Source};
pub use tasks::Task;
pub use text::{MAX_BYTES, MAX_SUBMIT_CHARS};
pub use triggers::{Action, Condition, Trigger};
pub use values::{Arch, ImageName, SecretRef, TaskName};

use std::fmt;

use diagnostic::Report;

/// The most artifacts a job may have (builds.sr.ht).
pub const MAX_ARTIFACTS: usize = 8;

/// A manifest whose every value was checked. `None` is a key that is absent or null, which
/// is not the same as an empty list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The image to boot.
    pub image: ImageName,
    /// The architecture; the image's default when absent.
    pub arch: Option<Arch>,
    /// Packages to install, by the distribution's names. Never empty texts.
    pub packages: Option<Vec<String>>,
    /// Package repositories to add, in the order of the text, names unique.
    pub repositories: Option<Vec<Repository>>,
    /// What to clone, in order.
    pub sources: Option<Vec<Source>>,
    /// Variables for the tasks, in the order of the text, names unique.
    pub environment: Option<Vec<Variable>>,
    /// Secrets to provide.
    pub secrets: Option<Vec<SecretRef>>,
    /// What to run, in order, names unique. Absent or empty only when `shell` is true.
    pub tasks: Option<Vec<Task>>,
    /// What to send when the job has ended.
    pub triggers: Option<Vec<Trigger>>,
    /// Whether to keep the guest for SSH when the tasks have ended.
    pub shell: Option<bool>,
    /// Files to keep, at most [`MAX_ARTIFACTS`], each path once; relative to the home
    /// directory unless absolute.
    pub artifacts: Option<Vec<String>>,
    /// Grants for a token that dies with the job.
    pub oauth: Option<String>,
}

/// One entry of `repositories`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Its name.
    pub name: String,
    /// Where it is; the meaning is the distribution's.
    pub source: String,
}

/// A manifest, and what its author should know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The manifest.
    pub manifest: Manifest,
    /// Warnings, in the order of the text.
    pub warnings: Vec<Diagnostic>,
}

/// A manifest that cannot be used. As a text: one line per diagnostic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// At least one error, and the warnings, in the order of the text; at most 64.
    pub diagnostics: Vec<Diagnostic>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

/// Reads a manifest of at most [`MAX_BYTES`].
///
/// ```
/// let parsed = kiln_core::manifest::parse(b"image: alpine/edge\ntasks:\n- build: make\n")?;
/// assert_eq!(parsed.manifest.image.distro(), "alpine");
/// assert_eq!(parsed.manifest.tasks()[0].script, "make");
/// # Ok::<(), kiln_core::manifest::Refused>(())
/// ```
///
/// # Errors
/// [`Refused`] with everything found to be wrong; with one error only when the text is not
/// YAML at all.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Refused> {
    let mut report = Report::default();
    let manifest = fields::read_document(bytes, &mut report);
    let failed = report.failed();
    let diagnostics = report.into_diagnostics();
    match manifest {
        Some(manifest) if !failed => Ok(Parsed {
            manifest,
            warnings: diagnostics,
        }),
        _ => Err(Refused { diagnostics }),
    }
}

impl Manifest {
    /// The normalised form: an object of exactly `image`, `arch`, `packages`, `repositories`,
    /// `sources`, `environment`, `secrets`, `tasks`, `triggers`, `shell`, `artifacts` and
    /// `oauth`, in that order, absent ones null. A number of `environment` is a JSON number
    /// when JSON would print the same digits, else a text.
    pub fn to_json(&self) -> serde_json::Value {
        json::normalised(self)
    }

    /// The manifest as YAML: reading it gives an equal manifest. It can be longer than what was
    /// read, by indentation and escapes, and so, near the limit, more than [`MAX_BYTES`].
    pub fn to_yaml(&self) -> String {
        print::yaml(self)
    }

    /// The tasks, none when absent.
    pub fn tasks(&self) -> &[Task] {
        self.tasks.as_deref().unwrap_or_default()
    }

    /// The sources, none when absent.
    pub fn sources(&self) -> &[Source] {
        self.sources.as_deref().unwrap_or_default()
    }

    /// The packages, none when absent.
    pub fn packages(&self) -> &[String] {
        self.packages.as_deref().unwrap_or_default()
    }

    /// The repositories, none when absent.
    pub fn repositories(&self) -> &[Repository] {
        self.repositories.as_deref().unwrap_or_default()
    }

    /// The variables, none when absent.
    pub fn environment(&self) -> &[Variable] {
        self.environment.as_deref().unwrap_or_default()
    }

    /// The secrets, none when absent.
    pub fn secrets(&self) -> &[SecretRef] {
        self.secrets.as_deref().unwrap_or_default()
    }

    /// The artifacts, none when absent.
    pub fn artifacts(&self) -> &[String] {
        self.artifacts.as_deref().unwrap_or_default()
    }

    /// The triggers, none when absent.
    pub fn triggers(&self) -> &[Trigger] {
        self.triggers.as_deref().unwrap_or_default()
    }

    /// Whether the guest is to be kept for SSH when the tasks have ended.
    pub fn wants_shell(&self) -> bool {
        self.shell == Some(true)
    }
}
