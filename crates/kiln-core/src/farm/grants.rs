//! What a token may do: `JOBS:RW LOGS:RO`.

use std::{collections::BTreeMap, fmt, str::FromStr};

/// What a grant is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Who one is, and other users.
    Profile,
    /// Jobs.
    Jobs,
    /// Their logs.
    Logs,
    /// Secrets.
    Secrets,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Profile, Self::Jobs, Self::Logs, Self::Secrets];

    /// Its name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Profile => "PROFILE",
            Self::Jobs => "JOBS",
            Self::Logs => "LOGS",
            Self::Secrets => "SECRETS",
        }
    }
}

/// How much of it. `Rw` includes `Ro`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Reading.
    Ro,
    /// Reading and writing.
    Rw,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ro => "RO",
            Self::Rw => "RW",
        }
    }
}

/// One thing that an operation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access(pub Scope, pub Kind);

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.as_str(), self.1.as_str())
    }
}

/// What a token may do. Its text is canonical.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants(BTreeMap<Scope, Kind>);

/// Why a text is no list of grants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no grant; grants are JOBS, LOGS, SECRETS and PROFILE, each with :RO or :RW, and spaces between"
)]
pub struct GrantError(String);

impl Grants {
    /// Whether this is granted.
    #[must_use]
    pub fn allow(&self, Access(scope, kind): Access) -> bool {
        self.0.get(&scope).is_some_and(|granted| *granted >= kind)
    }

    /// All there is.
    #[must_use]
    pub fn all() -> Self {
        Self(
            Scope::ALL
                .into_iter()
                .map(|scope| (scope, Kind::Rw))
                .collect(),
        )
    }
}

impl FromStr for Grants {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut grants = BTreeMap::new();
        for word in text.split_whitespace() {
            let (scope, kind) = read(word).ok_or_else(|| GrantError(word.to_owned()))?;
            let held = grants.entry(scope).or_insert(kind);
            *held = kind.max(*held);
        }
        if grants.is_empty() {
            return Err(GrantError(text.to_owned()));
        }
        Ok(Self(grants))
    }
}

fn read(word: &str) -> Option<(Scope, Kind)> {
    let (scope, kind) = word.split_once(':')?;
    let scope = Scope::ALL
        .into_iter()
        .find(|known| known.as_str() == scope)?;
    let kind = [Kind::Ro, Kind::Rw]
        .into_iter()
        .find(|known| known.as_str() == kind)?;
    Some((scope, kind))
}

impl fmt::Display for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (scope, kind) in &self.0 {
            write!(f, "{between}{}", Access(*scope, *kind))?;
            between = " ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_includes_reading_and_nothing_else() {
        let grants: Grants = "JOBS:RW LOGS:RO".parse().unwrap();
        assert!(grants.allow(Access(Scope::Jobs, Kind::Ro)));
        assert!(grants.allow(Access(Scope::Logs, Kind::Ro)));
        assert!(!grants.allow(Access(Scope::Logs, Kind::Rw)));
        assert!(!grants.allow(Access(Scope::Secrets, Kind::Ro)));
        assert_eq!(grants.to_string(), "JOBS:RW LOGS:RO");
    }

    #[test]
    fn what_is_no_grant_is_named() {
        for wrong in ["", "JOBS", "jobs:RW", "JOBS:WO", "JOBS:RW X:RO"] {
            assert!(wrong.parse::<Grants>().is_err(), "{wrong}");
        }
    }
}
