//! What a job asks of a worker, and what a worker is.
//!
//! ```text
//! arch=x86_64 image=debian/bookworm ssd=yes      a job's requirements
//! arch, images, ssd=yes, rack=4                  a worker's labels
//! ```

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::limits;

/// What a job asks of a worker. Its text is canonical, so that equal texts mean
/// equal requirements: the farm's queue is ordered by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirements {
    /// The image's name.
    pub image: String,
    /// The architecture; any that the worker takes by default when absent.
    pub arch: Option<String>,
    /// Further labels that a worker must have.
    pub labels: BTreeMap<String, String>,
}

/// Why something is no label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequirementsError {
    /// A word without `=`, or nothing before it.
    #[error("`{0}` is no label; write key=value")]
    NoLabel(String),
    /// A character that no label may have.
    #[error("`{0}` has a character that no label may have; letters, digits and ._/:@+- may be")]
    Character(String),
    /// A key that means something else.
    #[error("`{0}` can't be asked for like this: the manifest's own field says it")]
    Reserved(String),
    /// One key, two values.
    #[error("`{0}` is there twice")]
    Twice(String),
    /// Longer than [`limits::LABEL`].
    #[error("a label's key and value have at most {} bytes each", limits::LABEL)]
    Long,
    /// More than [`limits::LABELS`].
    #[error("there are at most {} labels", limits::LABELS)]
    Many,
}

/// Reads labels, `key=value` each.
///
/// # Errors
/// [`RequirementsError`] for the first that is wrong.
pub fn labels<S: AsRef<str>>(words: &[S]) -> Result<BTreeMap<String, String>, RequirementsError> {
    let mut labels = BTreeMap::new();
    for word in words {
        let word = word.as_ref();
        let no_label = || RequirementsError::NoLabel(word.to_owned());
        let (key, value) = word.split_once('=').ok_or_else(no_label)?;
        check(key, value, word)?;
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(RequirementsError::Twice(key.to_owned()));
        }
    }
    if labels.len() > limits::LABELS {
        return Err(RequirementsError::Many);
    }
    Ok(labels)
}

fn check(key: &str, value: &str, word: &str) -> Result<(), RequirementsError> {
    if key.is_empty() || value.is_empty() {
        return Err(RequirementsError::NoLabel(word.to_owned()));
    }
    if key.len() > limits::LABEL || value.len() > limits::LABEL {
        return Err(RequirementsError::Long);
    }
    let may_be = |byte: u8| byte.is_ascii_alphanumeric() || b"._/:@+-".contains(&byte);
    if !key.bytes().chain(value.bytes()).all(may_be) {
        return Err(RequirementsError::Character(word.to_owned()));
    }
    if matches!(key, "image" | "arch") {
        return Err(RequirementsError::Reserved(key.to_owned()));
    }
    Ok(())
}

impl Requirements {
    /// Reads labels, `key=value` each, that a job asks for besides image and
    /// architecture.
    ///
    /// # Errors
    /// [`RequirementsError`] for the first that is wrong.
    pub fn new<S: AsRef<str>>(
        image: String,
        arch: Option<String>,
        words: &[S],
    ) -> Result<Self, RequirementsError> {
        Ok(Self {
            image,
            arch,
            labels: labels(words)?,
        })
    }

    /// Reads what [`fmt::Display`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut labels: BTreeMap<String, String> = text
            .split(' ')
            .map(|word| word.split_once('='))
            .map(|pair| pair.map(|(key, value)| (key.to_owned(), value.to_owned())))
            .collect::<Option<_>>()?;
        Some(Self {
            image: labels.remove("image")?,
            arch: labels.remove("arch"),
            labels,
        })
    }
}

impl fmt::Display for Requirements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(arch) = &self.arch {
            write!(f, "arch={arch} ")?;
        }
        write!(f, "image={}", self.image)?;
        for (key, value) in &self.labels {
            write!(f, " {key}={value}")?;
        }
        Ok(())
    }
}

/// An image that a worker has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OfferedImage {
    /// Its name.
    pub name: String,
    /// Its architecture, as [`crate::arch::canonical`] has it.
    pub arch: String,
    /// What version of it this is: a digest of its directory, in hexadecimal.
    pub digest: String,
    /// Whether it is meant when a job names no architecture.
    pub default: bool,
}

/// What a worker is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Labels {
    /// The images that it has.
    pub images: Vec<OfferedImage>,
    /// What its operator said.
    pub labels: BTreeMap<String, String>,
}

impl Labels {
    /// The image by which a worker of these labels would run such a job.
    #[must_use]
    pub fn serves(&self, wanted: &Requirements) -> Option<&OfferedImage> {
        let has = |(key, value): (&String, &String)| self.labels.get(key) == Some(value);
        if !wanted.labels.iter().all(has) {
            return None;
        }
        self.images.iter().find(|image| {
            image.name == wanted.image
                && match &wanted.arch {
                    Some(arch) => crate::arch::same(arch, &image.arch),
                    None => image.default,
                }
        })
    }
}
