//! Tokens: how they are made, and what of them is stored.

use kiln_core::base64;
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest as _, Sha256};

use crate::model::TokenHash;

/// Random bytes of a token.
const BYTES: usize = 32;

/// Whose token it is: what it begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A person's.
    User,
    /// A worker's.
    Worker,
    /// A job's guest's.
    Job,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::User => "kiln_u_",
            Self::Worker => "kiln_w_",
            Self::Job => "kiln_j_",
        }
    }
}

/// A new token: 32 random bytes in base64url after the prefix; and what is stored of it.
///
/// # Errors
/// When the system has no random bytes.
pub fn make(kind: Kind) -> std::io::Result<(String, TokenHash)> {
    let mut random = [0; BYTES];
    // So few bytes come whole, or not at all.
    getrandom(&mut random, GetRandomFlags::empty())?;
    let text = base64::encode(&random).replace('+', "-").replace('/', "_");
    let token = format!("{}{}", kind.prefix(), text.trim_end_matches('='));
    let hash = hash(&token);
    Ok((token, hash))
}

/// What is stored of a token, and looked up.
#[must_use]
pub fn hash(token: &str) -> TokenHash {
    TokenHash(Sha256::digest(token.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_32_random_bytes_that_a_url_can_carry() {
        for kind in [Kind::User, Kind::Worker, Kind::Job] {
            let (one, found) = make(kind).unwrap();
            let (other, _) = make(kind).unwrap();
            assert_ne!(one, other);
            assert_eq!(found, hash(&one));
            let letters = one.strip_prefix(kind.prefix()).unwrap();
            assert_eq!(letters.len(), 43);
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            assert!(letters.bytes().all(plain), "{one}");
        }
    }
}
