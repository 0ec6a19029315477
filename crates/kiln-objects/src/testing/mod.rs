//! For tests, with the feature `testing` alone: an S3 server of their own, and an index in
//! memory.

mod index;
mod s3;

pub use index::MemoryIndex;
pub use s3::S3;
