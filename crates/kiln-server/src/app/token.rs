//! Tokens that the server makes and looks up.

use kiln_core::base64;
use kiln_store::model::TokenHash;
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};

/// What a job's token begins with.
const OF_JOBS: &str = "kiln_j_";
/// Random bytes of a token.
const BYTES: usize = 32;

/// What is stored of a token, and looked up.
pub(crate) fn hash(token: &str) -> TokenHash {
    TokenHash(Sha256::digest(token.as_bytes()).into())
}

/// A new token for a job's guest.
///
/// # Errors
/// When the system has no random bytes.
pub(crate) fn of_job() -> std::io::Result<String> {
    let mut random = [0; BYTES];
    // So few bytes come whole, or not at all.
    getrandom(&mut random, GetRandomFlags::empty())?;
    let text = base64::encode(&random);
    let text = text
        .trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_");
    Ok(format!("{OF_JOBS}{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_token_is_32_random_bytes_that_a_url_can_carry() {
        let (one, other) = (of_job().unwrap(), of_job().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), OF_JOBS.len() + 43);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        assert!(one.bytes().all(plain), "{one}");
    }
}
