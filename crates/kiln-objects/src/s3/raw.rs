//! A bucket by itself, through the client that logs go by: what benchmarks compare with.

use std::io;

use bytes::Bytes;

use super::{bucket::Bucket, config::S3Config};

/// A bucket by itself.
#[derive(Debug)]
pub struct Raw(Bucket);

impl Raw {
    /// One that is reached like this.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    pub fn connect(config: &S3Config) -> io::Result<Self> {
        Ok(Self(Bucket::connect(config)?))
    }

    /// Puts an object.
    ///
    /// # Errors
    /// When the server does not take it, asked for a while.
    pub async fn put(&self, key: &str, bytes: Bytes) -> io::Result<()> {
        self.0.put(key, bytes).await
    }
}
