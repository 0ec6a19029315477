//! An artifact on its way in.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::{
    fs::File,
    io::{AsyncRead, AsyncWriteExt},
};

use super::disk;
use crate::{PutError, counted::Counted};

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
        let mut counted = Counted::new(body, size);
        loop {
            let bytes = counted.next(CHUNK).await?;
            if bytes.is_empty() {
                break;
            }
            file.write_all(&bytes).await?;
        }
        counted.whole(sha256)?;
        file.flush().await?;
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
