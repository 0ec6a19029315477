//! For tests and benchmarks, with the feature `testing` alone: an S3 server of their own, a
//! bucket by itself, and an index in memory.

mod index;
mod s3;

pub use crate::s3::Raw;
pub use index::MemoryIndex;
pub use s3::S3;
