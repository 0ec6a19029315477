//! Values by key, and where each came from.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use super::{
    args::{Flags, Settings},
    file::{self, Remark},
    keys::{self, Key, Kind, Role},
};
use crate::exit::Failure;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag,
    /// A variable.
    Variable(String),
    /// A file: its path, and the line or the section and key.
    File(PathBuf, String),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Variable(name) => f.write_str(name),
            Self::File(path, place) => write!(f, "{} {place}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// What a variable is set to, if it is.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One key's values: one, but for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The texts.
    pub texts: Vec<String>,
    /// Where they came from.
    pub source: Source,
}

/// All that was said to a command, the stronger over the weaker.
#[derive(Debug)]
pub struct Layers {
    role: Role,
    values: BTreeMap<&'static str, Value>,
    /// What `kiln config check` says besides.
    pub remarks: Vec<Remark>,
}

impl Layers {
    /// Reads flags, variables and the file.
    ///
    /// # Errors
    /// When the file can't be read or has something that is no setting.
    pub fn read<F: Flags>(
        settings: &Settings<F>,
        environment: Environment<'_>,
    ) -> Result<Self, Failure> {
        let role = settings.role();
        let mut layers = Self {
            role,
            values: BTreeMap::new(),
            remarks: Vec::new(),
        };
        if let Some(path) = &settings.config {
            let read = file::read(path, role).map_err(Failure::usage)?;
            layers.values = read.values;
            layers.remarks = read.remarks;
        }
        for key in keys::of(role) {
            let variable = key.variable();
            // An empty one is one that nobody set.
            if let Some(text) = environment(&variable).filter(|text| !text.is_empty()) {
                layers.put(key, split(key, &text), Source::Variable(variable));
            }
        }
        for (key, texts) in &settings.given {
            layers.put(key, texts.clone(), Source::Flag);
        }
        Ok(layers)
    }

    fn put(&mut self, key: &'static Key, texts: Vec<String>, source: Source) {
        self.values.insert(key.name, Value { texts, source });
    }

    /// Whose they are.
    pub fn role(&self) -> Role {
        self.role
    }

    /// A key's value, which may be its default.
    pub fn value(&self, key: &'static Key) -> Value {
        self.values.get(key.name).cloned().unwrap_or_else(|| Value {
            texts: match key.default {
                "" => Vec::new(),
                default => vec![default.to_owned()],
            },
            source: Source::Default,
        })
    }

    fn named(&self, name: &str) -> (&'static Key, Value) {
        let key = keys::find(self.role, name);
        let key = key.unwrap_or_else(|| unreachable!("`{name}` is in the table of keys"));
        (key, self.value(key))
    }

    /// One text, read by `read`; none when nothing was said and there is no default.
    ///
    /// # Errors
    /// What `read` says, with where the value came from.
    pub fn maybe<T, E: fmt::Display>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Failure> {
        let (key, value) = self.named(name);
        let Some(text) = value.texts.last() else {
            return Ok(None);
        };
        match read(text) {
            Ok(read) => Ok(Some(read)),
            Err(error) => Err(wrong(key, &value.source, &error)),
        }
    }

    /// One text that has a default.
    ///
    /// # Errors
    /// As [`Self::maybe`].
    pub fn one<T, E: fmt::Display>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, Failure> {
        let found = self.maybe(name, read)?;
        found.ok_or_else(|| {
            let (key, _) = self.named(name);
            Failure::usage(format!(
                "{} needs --{} {} (or {}, or `{} = …` in its file)",
                self.role.command(),
                key.name,
                key.placeholder,
                key.variable(),
                key.name
            ))
        })
    }

    /// The texts of a list.
    pub fn many(&self, name: &str) -> Vec<String> {
        self.named(name).1.texts
    }

    /// A switch.
    ///
    /// # Errors
    /// When it is neither yes nor no.
    pub fn switch(&self, name: &str) -> Result<bool, Failure> {
        self.one(name, |text| match text.to_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err(format!("`{text}` is neither true nor false")),
        })
    }

    /// Where a key's value came from.
    pub fn source(&self, name: &str) -> Source {
        self.named(name).1.source
    }

    /// A mistake in a value, with where it came from.
    pub fn mistake(&self, name: &str, problem: &dyn fmt::Display) -> Failure {
        let (key, value) = self.named(name);
        wrong(key, &value.source, problem)
    }
}

fn wrong(key: &Key, source: &Source, problem: &dyn fmt::Display) -> Failure {
    Failure::usage(match source {
        Source::Flag | Source::Default => format!("--{}: {problem}", key.name),
        Source::Variable(name) => format!("{name}: {problem}"),
        Source::File(path, place) => {
            format!("{}: {place}: {}: {problem}", path.display(), key.name)
        }
    })
}

/// A list in a variable has spaces, or commas, between its words.
fn split(key: &Key, text: &str) -> Vec<String> {
    match key.kind {
        Kind::Many => text
            .split([' ', ',', '\n', '\t'])
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect(),
        _ => vec![text.to_owned()],
    }
}
