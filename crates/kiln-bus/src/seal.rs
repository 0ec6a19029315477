//! HMAC-SHA256 (RFC 2104), cut to 16 bytes.

use sha2::{Digest as _, Sha256};

use crate::hint::Key;

/// A seal, in bytes.
pub(crate) const LENGTH: usize = 16;
/// SHA-256's block.
const BLOCK: usize = 64;

/// The seal of what is said.
pub(crate) fn of(key: &Key, said: &[u8]) -> [u8; LENGTH] {
    let whole = hmac(&key.0, said);
    std::array::from_fn(|at| whole[at])
}

/// Whether it is that, in a time that does not tell how nearly.
pub(crate) fn is(key: &Key, said: &[u8], seal: [u8; LENGTH]) -> bool {
    let differs = of(key, said).into_iter().zip(seal);
    differs.fold(0, |all, (ours, theirs)| all | (ours ^ theirs)) == 0
}

/// With a key of at most one block.
fn hmac(key: &[u8], said: &[u8]) -> [u8; 32] {
    let pad = |with: u8| -> [u8; BLOCK] {
        std::array::from_fn(|at| key.get(at).copied().unwrap_or_default() ^ with)
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(said);
    let outer = Sha256::new().chain_update(pad(0x5c));
    outer.chain_update(inner.finalize()).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test cases 1 and 2.
    #[test]
    fn it_is_what_the_standard_says() {
        let hexadecimal = |bytes: [u8; 32]| -> String {
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        assert_eq!(
            hexadecimal(hmac(&[0x0b; 20], b"Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(
            hexadecimal(hmac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
