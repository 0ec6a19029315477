//! Submitting a job.

use kiln_core::{
    farm::{Requirements, Visibility, limits},
    manifest::{self, Diagnostic, Manifest, Severity},
    suggest,
};
use kiln_store::model::{Changed, Job, NewJob};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    Actor, Error, Result, input,
    permission::{self, Deed},
};
use crate::state::State;

/// What somebody submits.
#[derive(Debug, Default)]
pub(crate) struct Submission {
    /// The manifest's text.
    pub(crate) manifest: String,
    /// Tags; empty ones count as none.
    pub(crate) tags: Option<Vec<String>>,
    /// A note.
    pub(crate) note: Option<String>,
    /// Whether the manifest's secrets are wanted; when absent: if it names any and
    /// the token may read secrets.
    pub(crate) secrets: Option<bool>,
    /// Whether it is queued at once; it is when absent.
    pub(crate) execute: Option<bool>,
    /// Who sees it; those with the link when absent.
    pub(crate) visibility: Option<Visibility>,
    /// Labels that a worker must have, `key=value` each.
    pub(crate) requirements: Option<Vec<String>>,
    /// The client's name for this very submission.
    pub(crate) key: Option<String>,
}

/// Writes a job, or finds the one that the same key made.
///
/// # Errors
/// [`Error::Invalid`] with what is wrong where; [`Error::Conflict`] when the key
/// was used for something else.
pub(crate) async fn submit(state: &State, actor: &Actor, submission: Submission) -> Result<Job> {
    permission::may(actor, Deed::Submit)?;
    let owner = actor.person().ok_or(super::Error::Hidden("user"))?.id;
    let digest = digest(&submission);
    let manifest = read(&submission.manifest)?;
    input::at_most_entries("tasks", manifest.tasks().len(), limits::TASKS)?;
    let requirements = requirements(&manifest, submission.requirements.as_deref())?;
    known_image(&state.store.offered().await?, &requirements)?;
    let job = NewJob {
        owner,
        share: None,
        priority: 0,
        requirements,
        tasks: names_of_tasks(&manifest),
        note: input::note(submission.note)?,
        tags: input::tags(submission.tags)?,
        visibility: submission.visibility.unwrap_or(Visibility::Unlisted),
        secrets: secrets(actor, &manifest, submission.secrets)?,
        execute: submission.execute.unwrap_or(true),
        deadline_seconds: state.config.job_timeout.as_secs(),
        idempotency: submission.key.map(|key| (key, digest)),
        manifest: submission.manifest,
    };
    let (job, new) = state.store.submit(&job).await?;
    if new {
        state.hints.changed(&Changed {
            jobs: vec![job.id],
            assign: true,
            ..Changed::default()
        });
    }
    Ok(job)
}

/// Reads an `Idempotency-Key`.
///
/// # Errors
/// When it is empty, too long, or not printable.
pub(crate) fn key(bytes: &[u8]) -> Result<String> {
    let printable = bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
    if bytes.is_empty() || bytes.len() > limits::IDEMPOTENCY_KEY || !printable {
        return Err(Error::invalid(format!(
            "the header Idempotency-Key is 1 to {} printable characters; send a random one, and the same again when you try again",
            limits::IDEMPOTENCY_KEY
        )));
    }
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// What was submitted, so that a key which is used for something else is noticed.
fn digest(submission: &Submission) -> [u8; 32] {
    let Submission {
        manifest,
        tags,
        note,
        secrets,
        execute,
        visibility,
        requirements,
        key: _,
    } = submission;
    let all = json!([
        manifest,
        tags,
        note,
        secrets,
        execute,
        visibility,
        requirements
    ]);
    Sha256::digest(all.to_string()).into()
}

fn read(text: &str) -> Result<Manifest> {
    let refused = match manifest::parse(text.as_bytes()) {
        Ok(parsed) => return Ok(parsed.manifest),
        Err(refused) => refused,
    };
    let errors = refused.diagnostics.iter();
    let errors: Vec<_> = errors
        .filter(|found| found.severity == Severity::Error)
        .map(|error| format!("manifest: {error}"))
        .collect();
    let details: Vec<Value> = refused.diagnostics.iter().map(diagnostic).collect();
    Err(Error::Invalid {
        message: errors.join("\n"),
        details: json!({ "field": "manifest", "diagnostics": details }),
    })
}

fn diagnostic(found: &Diagnostic) -> Value {
    json!({
        "severity": match found.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "line": found.line,
        "column": found.column,
        "field": found.field,
        "message": found.message,
        "remedy": found.remedy,
    })
}

fn names_of_tasks(manifest: &Manifest) -> Vec<String> {
    let names = manifest.tasks().iter().map(|task| task.name.as_str());
    names.map(str::to_owned).collect()
}

fn requirements(manifest: &Manifest, words: Option<&[String]>) -> Result<Requirements> {
    let image = manifest.image.as_str().to_owned();
    let arch = manifest.arch.as_ref().map(|arch| arch.as_str().to_owned());
    Requirements::new(image, arch, words.unwrap_or_default()).map_err(|error| Error::Invalid {
        message: format!("`requirements`: {error}"),
        details: json!({ "field": "requirements" }),
    })
}

/// An image's name and architecture.
type Known = (String, String);

/// Refuses an image that no worker ever offered. One that was offered once is
/// waited for; and where no worker ever came, nothing is known yet, and a job waits.
fn known_image(known: &[Known], wanted: &Requirements) -> Result<()> {
    let same = |(name, offered): &Known| {
        let arch = wanted.arch.as_deref();
        *name == wanted.image && arch.is_none_or(|arch| kiln_core::arch::same(arch, offered))
    };
    if known.is_empty() || known.iter().any(same) {
        return Ok(());
    }
    let details = json!({ "field": "image", "images": images(known) });
    let arches: Vec<_> = known
        .iter()
        .filter(|(name, _)| *name == wanted.image)
        .map(|(_, arch)| arch.as_str())
        .collect();
    let message = if arches.is_empty() {
        let mut names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
        names.dedup();
        let remedy = match suggest::nearest(&wanted.image, &names) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("write one of {}", listed(&names)),
        };
        format!(
            "image: no worker of this farm ever had `{}`; {remedy}",
            wanted.image
        )
    } else {
        let arch = wanted.arch.as_deref().unwrap_or_default();
        let image = &wanted.image;
        let has = listed(&arches);
        format!(
            "arch: no worker of this farm ever had `{image}` for `{arch}`; it is there for {has}"
        )
    };
    Err(Error::Invalid { message, details })
}

/// At most a dozen words, in backticks.
fn listed(words: &[&str]) -> String {
    let mut shown: Vec<_> = words
        .iter()
        .take(12)
        .map(|word| format!("`{word}`"))
        .collect();
    if words.len() > shown.len() {
        shown.push("…".into());
    }
    shown.join(", ")
}

fn images(known: &[Known]) -> Vec<Value> {
    let image = |(name, arch): &Known| json!({ "name": name, "arch": arch });
    known.iter().take(64).map(image).collect()
}

/// Whether the job gets the manifest's secrets. To want them where there are none
/// needs no grant: `hut` always says so.
fn secrets(actor: &Actor, manifest: &Manifest, wanted: Option<bool>) -> Result<bool> {
    if manifest.secrets().is_empty() {
        return Ok(wanted.unwrap_or(false));
    }
    match wanted {
        Some(true) => permission::may(actor, Deed::ReadSecrets).map(|()| true),
        Some(false) => Ok(false),
        None => Ok(permission::may(actor, Deed::ReadSecrets).is_ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(names: &[(&str, &str)]) -> Vec<Known> {
        let image = |(name, arch): &(&str, &str)| ((*name).into(), (*arch).into());
        names.iter().map(image).collect()
    }

    fn wanted(image: &str, arch: Option<&str>) -> Requirements {
        Requirements::new::<&str>(image.into(), arch.map(Into::into), &[]).unwrap()
    }

    #[test]
    fn an_image_that_nobody_ever_had_is_refused_with_a_suggestion() {
        let known = known(&[("debian/bookworm", "x86_64")]);
        let error = known_image(&known, &wanted("debian/bokworm", None)).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("did you mean `debian/bookworm`?")
        );
        let error = known_image(&known, &wanted("plan9", None)).unwrap_err();
        assert!(error.to_string().contains("write one of `debian/bookworm`"));
    }

    #[test]
    fn an_architecture_that_an_image_never_had_is_refused() {
        let known = known(&[("debian/bookworm", "x86_64")]);
        let error = known_image(&known, &wanted("debian/bookworm", Some("arm64"))).unwrap_err();
        assert!(error.to_string().contains("it is there for `x86_64`"));
        assert!(known_image(&known, &wanted("debian/bookworm", Some("amd64"))).is_ok());
    }

    #[test]
    fn an_image_that_is_not_here_now_is_waited_for_and_so_is_any_before_the_first_worker() {
        let debian = known(&[("debian/bookworm", "x86_64")]);
        assert!(known_image(&debian, &wanted("debian/bookworm", None)).is_ok());
        assert!(known_image(&[], &wanted("anything", None)).is_ok());
    }
}
