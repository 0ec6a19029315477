//! An artifact on its way in: counted and hashed, for it must be just what was said.

use bytes::BytesMut;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::PutError;

pub(crate) struct Counted<'a> {
    body: &'a mut (dyn AsyncRead + Send + Unpin),
    /// What was announced.
    size: u64,
    count: u64,
    hash: Sha256,
}

impl<'a> Counted<'a> {
    pub(crate) fn new(body: &'a mut (dyn AsyncRead + Send + Unpin), size: u64) -> Self {
        Self {
            body,
            size,
            count: 0,
            hash: Sha256::new(),
        }
    }

    /// The next bytes, so many if there are so many; none at the end.
    pub(crate) async fn next(&mut self, most: usize) -> Result<BytesMut, PutError> {
        let mut bytes = BytesMut::with_capacity(most);
        while bytes.len() < most {
            let rest = (most - bytes.len()) as u64;
            let mut limited = (&mut *self.body).take(rest);
            let read = limited.read_buf(&mut bytes).await;
            if read.map_err(PutError::Broken)? == 0 {
                break;
            }
        }
        self.count += bytes.len() as u64;
        if self.count > self.size {
            let size = self.size;
            let text = format!("the artifact is longer than the {size} bytes that were announced");
            return Err(PutError::Different(text));
        }
        self.hash.update(&bytes);
        Ok(bytes)
    }

    /// Whether all that came is what was announced. Nothing comes any more.
    pub(crate) fn whole(self, sha256: &str) -> Result<(), PutError> {
        let Self { count, size, .. } = self;
        if count < size {
            let text = format!("the artifact has {count} bytes, and {size} were announced");
            return Err(PutError::Different(text));
        }
        let digest = hex(&self.hash.finalize());
        if digest != sha256 {
            let text = format!("the artifact's SHA-256 is {digest}, not {sha256}");
            return Err(PutError::Different(text));
        }
        Ok(())
    }
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
