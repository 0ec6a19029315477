//! An artifact on its way in.

use std::{
    io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
};

use crate::{PutError, disk};

/// What is read at once.
const CHUNK: usize = 256 << 10;

/// A whole artifact that is not where it belongs yet. Its file goes with it.
#[derive(Debug)]
pub(crate) struct Incoming {
    path: PathBuf,
}

impl Incoming {
    /// Takes it in: what comes must be just what was said.
    pub(crate) async fn take(
        path: PathBuf,
        body: &mut (dyn AsyncRead + Send + Unpin),
        size: u64,
        sha256: &str,
    ) -> Result<Self, PutError> {
        let mut file = File::create_new(&path).await?;
        let incoming = Self { path };
        let digest = copy(body, &mut file, size).await?;
        if digest != sha256 {
            let text = format!("the artifact's SHA-256 is {digest}, not {sha256}");
            return Err(PutError::Different(text));
        }
        file.sync_all().await?;
        Ok(incoming)
    }

    /// Puts it where it belongs.
    pub(crate) fn put(self, root: &Path, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            disk::make(parent)?;
        }
        std::fs::rename(&self.path, path)?;
        disk::sync_entries(root, path)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Not there when it was renamed; what stays else goes at the next opening.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn copy(
    body: &mut (dyn AsyncRead + Send + Unpin),
    file: &mut File,
    size: u64,
) -> Result<String, PutError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut count = 0;
    loop {
        let read = body.read(&mut buffer).await.map_err(PutError::Broken)?;
        if read == 0 {
            break;
        }
        count += read as u64;
        if count > size {
            let text = format!("the artifact is longer than the {size} bytes that were announced");
            return Err(PutError::Different(text));
        }
        hash.update(&buffer[..read]);
        file.write_all(&buffer[..read]).await?;
    }
    if count < size {
        let text = format!("the artifact has {count} bytes, and {size} were announced");
        return Err(PutError::Different(text));
    }
    file.flush().await?;
    let digest = hash.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
