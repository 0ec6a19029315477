//! Making tokens. What is stored is their hash.

use kiln_core::base64;
use kiln_store::model::TokenHash;
use sha2::{Digest as _, Sha256};

use crate::exit::Failure;

/// What a person's token begins with.
pub const USER: &str = "kiln_u_";
/// What a worker's begins with.
pub const WORKER: &str = "kiln_w_";

/// A new one: 32 random bytes in base64url after the prefix.
///
/// # Errors
/// When the kernel gives no random bytes.
pub fn make(prefix: &str) -> Result<(String, TokenHash), Failure> {
    let mut bytes = [0u8; 32];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    if got.map_err(Failure::host)? != bytes.len() {
        return Err(Failure::host("the kernel gives too few random bytes"));
    }
    let text = base64::encode(&bytes).replace('+', "-").replace('/', "_");
    let token = format!("{prefix}{}", text.trim_end_matches('='));
    let hash = TokenHash(Sha256::digest(&token).into());
    Ok((token, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_43_letters_after_its_prefix_and_never_the_same() {
        let (one, hash) = make(USER).unwrap();
        let (other, _) = make(USER).unwrap();
        assert_ne!(one, other);
        let letters = one.strip_prefix(USER).unwrap();
        assert_eq!(letters.len(), 43);
        assert!(
            letters
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        );
        assert_eq!(hash, TokenHash(Sha256::digest(one.as_bytes()).into()));
    }
}
