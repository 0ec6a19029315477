//! A finished log: zstd frames, each of at most 1 MiB of text (256 KiB as we write them, so that
//! who reads slowly costs little) and readable alone, and an index of them at the end.
//!
//! ```text
//! zstd frame, zstd frame, …, skippable frame:
//!     5b 2a 4d 18, its length (u32)
//!     for each frame: text offset, offset in the file, line, time (u64 each, i64 the time)
//!     footer: frames, text length, ends of lines (u64 each), digest (8 bytes), "KILNLOG1"
//! ```
//!
//! All numbers are little-endian. The digest is the begin of the SHA-256 of the entries and the
//! footer before it. `zstd -d` reads the whole, for to it the skippable frame is nothing. A
//! frame's *line* is the number, from 1, of the line that its first byte is of; its *time* is
//! a moment (microseconds since 1970) by which that byte was stored: of an object store the
//! very commit, of a directory when the file was last written.
//!
//! Reading trusts nothing: whatever a file says, it is an error or bounded memory.

mod index;
mod writer;

pub use index::{FOOTER, Frame, FrameError, Index, MAX_INDEX};
pub use writer::{Summary, Writer};

/// The most text of one frame, in bytes.
pub const MAX_FRAME: usize = 1 << 20;
/// The most text of a frame that we write, in bytes.
pub const FRAME: usize = 256 << 10;
