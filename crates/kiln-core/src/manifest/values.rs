//! The small values of a manifest that are one word with a rule: the image, the architecture,
//! the names of tasks and of secrets, the paths of artifacts.

use std::fmt;

use super::diagnostic::{Problem, quoted, refuse_control};

/// The longest image name, in characters (builds.sr.ht).
const MAX_IMAGE_CHARS: usize = 256;
/// The longest architecture name, in characters: none comes near it.
const MAX_ARCH_CHARS: usize = 64;
/// The longest task name, in characters (builds.sr.ht).
const MAX_TASK_NAME_CHARS: usize = 128;
/// The lengths a secret's name may have, in characters (builds.sr.ht).
const SECRET_NAME_CHARS: std::ops::RangeInclusive<usize> = 3..=512;

macro_rules! word {
    ($type:ident) => {
        impl $type {
            /// The text as it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// The image to boot: `distro` or `distro/release`, at most 256 characters. It is part of a
/// path on the build host, so a segment is letters, digits, `.`, `_`, `+` and `-` and begins
/// with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageName(String);
word!(ImageName);

impl ImageName {
    /// Checks an image's name; whether there is such an image is not known here.
    ///
    /// # Errors
    /// When it has more than two segments, is too long, or a segment has other characters.
    pub fn parse(name: &str) -> Result<Self, Problem> {
        if name.chars().count() > MAX_IMAGE_CHARS {
            let message = format!("the image's name is longer than {MAX_IMAGE_CHARS} characters");
            return Err(Problem::new(message, "write it as `distro/release`"));
        }
        if name.split('/').count() <= 2 && name.split('/').all(is_path_word) {
            return Ok(Self(name.to_owned()));
        }
        Err(Problem::new(
            format!("{} cannot be the name of an image", quoted(name)),
            "write it as `distro` or `distro/release`, for example `debian/bookworm`",
        ))
    }

    /// The distribution, such as `debian`.
    pub fn distro(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The release, such as `bookworm`, when one was asked for.
    pub fn release(&self) -> Option<&str> {
        self.0.split_once('/').map(|(_, release)| release)
    }
}

/// An architecture as its author wrote it. Compare by [`crate::arch::same`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Arch(String);
word!(Arch);

impl Arch {
    /// Checks an architecture's name: it is part of a path on the build host.
    ///
    /// # Errors
    /// When it is empty, longer than 64 characters, or has other characters than a path word.
    pub fn parse(name: &str) -> Result<Self, Problem> {
        if is_path_word(name) && name.len() <= MAX_ARCH_CHARS {
            return Ok(Self(name.to_owned()));
        }
        Err(Problem::new(
            format!("{} cannot be an architecture", quoted(name)),
            "write a name such as `x86_64` or `aarch64`, or remove the line",
        ))
    }
}

/// `^[A-Za-z0-9][A-Za-z0-9._+-]*$`
fn is_path_word(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphanumeric())
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-'))
}

/// The name of a task: `^[a-z0-9_-]+$`, at most 128 characters. It is a file name in the
/// guest and part of a log's address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TaskName(String);
word!(TaskName);

impl TaskName {
    /// Checks a task's name.
    ///
    /// # Errors
    /// When it is empty, too long, or has other characters.
    pub fn parse(name: &str) -> Result<Self, Problem> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
        if !name.is_empty() && name.len() <= MAX_TASK_NAME_CHARS && name.bytes().all(allowed) {
            return Ok(Self(name.to_owned()));
        }
        Err(Problem::new(
            format!("{} cannot be the name of a task", quoted(name)),
            format!("use 1 to {MAX_TASK_NAME_CHARS} lower-case letters, digits, `_` and `-`"),
        ))
    }
}

/// How a manifest names one of its owner's secrets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretRef {
    /// By its UUID (8-4-4-4-12 hexadecimal digits), as written.
    Uuid(String),
    /// By a name of 3 to 512 characters.
    Name(String),
}

impl SecretRef {
    /// Checks the reference; whether there is such a secret is not known here.
    ///
    /// # Errors
    /// When it is no UUID and its length is not that of a name, or it has control characters.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        refuse_control(text, "secret")?;
        if is_uuid(text) {
            return Ok(Self::Uuid(text.to_owned()));
        }
        if SECRET_NAME_CHARS.contains(&text.chars().count()) {
            return Ok(Self::Name(text.to_owned()));
        }
        Err(Problem::new(
            format!(
                "{} is neither a UUID nor a name of 3 to 512 characters",
                quoted(text)
            ),
            "use the UUID or the name that the list of your secrets shows",
        ))
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Uuid(text) | Self::Name(text) => text,
        }
    }
}

fn is_uuid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let groups: Vec<&str> = text.split('-').collect();
    groups.len() == lengths.len()
        && groups.iter().zip(lengths).all(|(group, length)| {
            group.len() == length && group.bytes().all(|b| b.is_ascii_hexdigit())
        })
}

/// Checks the path of an artifact. It is kept as given: a file of the guest, relative to the
/// home directory unless absolute.
pub(super) fn artifact(path: &str) -> Result<String, Problem> {
    if path.is_empty() {
        let remedy = "name a file, relative to the home directory";
        return Err(Problem::new("the path of this artifact is empty", remedy));
    }
    refuse_control(path, "artifact")?;
    Ok(path.to_owned())
}

/// Checks a text on one line that is not empty: a package, a repository.
pub(super) fn line(text: &str, what: &str) -> Result<String, Problem> {
    if text.is_empty() {
        return Err(Problem::new(
            format!("this {what} is empty"),
            "write it, or remove the line",
        ));
    }
    refuse_control(text, what)?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_a_distro_and_perhaps_a_release() {
        let image = ImageName::parse("debian/bookworm").expect("fine");
        assert_eq!(
            (image.distro(), image.release()),
            ("debian", Some("bookworm"))
        );
        let image = ImageName::parse("archlinux").expect("fine");
        assert_eq!((image.distro(), image.release()), ("archlinux", None));
        let long = "a".repeat(257);
        for name in [
            "", "/", "a/", "/a", "a/b/c", "../a", "a/..", "-a", "a b", "a/b\n", "é", &long,
        ] {
            assert!(ImageName::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn an_architecture_is_one_path_word() {
        assert!(Arch::parse("x86_64").is_ok());
        for name in ["", "..", "a/b", "-x", "x y"] {
            assert!(Arch::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_task_name_is_lower_case_and_at_most_128_long() {
        assert!(TaskName::parse("build_2-x").is_ok());
        assert!(TaskName::parse(&"a".repeat(128)).is_ok());
        let long = "a".repeat(129);
        for name in ["", "Build", "a b", "a.b", "a/b", "é", &long] {
            assert!(TaskName::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_secret_is_a_uuid_or_a_name() {
        let uuid = "0C8C3F1d-60bb-4b5a-9d3e-0d5bd5b4a5ac";
        assert_eq!(SecretRef::parse(uuid), Ok(SecretRef::Uuid(uuid.to_owned())));
        assert_eq!(
            SecretRef::parse("key"),
            Ok(SecretRef::Name("key".to_owned()))
        );
        assert!(SecretRef::parse("ab").is_err());
        assert!(SecretRef::parse(&"é".repeat(512)).is_ok());
        assert!(SecretRef::parse(&"é".repeat(513)).is_err());
        assert!(SecretRef::parse("a\nb c").is_err());
    }
}
