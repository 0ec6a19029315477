//! Typed numbers, so that none is taken for another.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($number:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $number);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id! {
    /// A user. The API's ids have 32 bits.
    UserId(i32)
}
id! {
    /// A job.
    JobId(i32)
}
id! {
    /// A task of a job.
    TaskId(i32)
}
id! {
    /// Jobs that were submitted together.
    GroupId(i32)
}
id! {
    /// An artifact that a farm keeps.
    ArtifactId(i32)
}
id! {
    /// A personal token.
    TokenId(i32)
}
id! {
    /// A worker's registration: what its token is for. Several processes may use one.
    WorkerId(i32)
}
id! {
    /// What fairness counts by.
    ShareId(i64)
}
id! {
    /// An attempt's number, which no other attempt of the farm ever had, and which
    /// grows. What is reported under it is refused once its lease has ended.
    Fence(i64)
}

/// One start of a worker: random, new at each start, 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(String);

impl SessionId {
    /// Of 16 random bytes.
    #[must_use]
    pub fn new(random: [u8; 16]) -> Self {
        Self(random.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SessionId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if text.len() == 32 && text.as_bytes().iter().all(digit) {
            Ok(Self(text))
        } else {
            Err("a session is 32 hexadecimal digits in lower case")
        }
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
