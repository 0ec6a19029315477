//! The index at a packed log's end, and how a frame is read.

use std::io;

use sha2::{Digest, Sha256};

use super::MAX_FRAME;

/// One of the sixteen numbers by which skippable frames are known.
const SKIPPABLE: u32 = 0x184d_2a5b;
/// Number and length of a skippable frame.
const HEADER: usize = 8;
/// An entry.
const ENTRY: usize = 32;
/// The footer, in bytes: what is read first.
pub const FOOTER: usize = 40;
/// Where the digest is in the footer.
const DIGEST: usize = 24;
const MAGIC: &[u8; 8] = b"KILNLOG1";
/// The longest index that is read, in bytes: of a log of 128 GiB.
pub const MAX_INDEX: u64 = 16 << 20;

/// Why bytes are no packed log.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// It is damaged, or something else.
    #[error("this is no packed log, or it is damaged: {0}")]
    Damaged(&'static str),
    /// A frame is not what the index says.
    #[error("a frame of a packed log is damaged: {0}")]
    Frame(#[source] io::Error),
}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Where a frame is and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Where its text begins in the log.
    pub text: u64,
    /// Where it begins in the file.
    pub at: u64,
    /// Which line its first byte is of, from 1.
    pub line: u64,
    /// When its first byte was stored at the latest: microseconds since 1970.
    pub time: i64,
}

/// What a packed log's end says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    frames: Vec<Frame>,
    /// Bytes of text.
    text: u64,
    /// Ends of lines in it.
    lines: u64,
    /// Where the index begins in the file.
    end: u64,
}

impl Index {
    /// How many bytes at the file's end are the index, told by at least its last
    /// [`FOOTER`] bytes.
    ///
    /// # Errors
    /// [`FrameError::Damaged`], also when it would be longer than [`MAX_INDEX`].
    pub fn length(end: &[u8]) -> Result<u64, FrameError> {
        let footer = end.len().checked_sub(FOOTER).map(|from| &end[from..]);
        let footer = footer.ok_or(FrameError::Damaged("it is too short"))?;
        if !footer.ends_with(MAGIC) {
            return Err(FrameError::Damaged("its end is not an index's"));
        }
        let length = number(footer, 0)
            .checked_mul(ENTRY as u64)
            .and_then(|entries| entries.checked_add((HEADER + FOOTER) as u64));
        match length {
            Some(length) if length <= MAX_INDEX => Ok(length),
            _ => Err(FrameError::Damaged("its index is too long")),
        }
    }

    /// Reads the index of a file of `file` bytes: `end` has at least its last
    /// [`Self::length`] bytes.
    ///
    /// # Errors
    /// [`FrameError::Damaged`]. What is read is in order: frames follow each other, and
    /// none is longer than a frame may be.
    pub fn read(end: &[u8], file: u64) -> Result<Self, FrameError> {
        let length = Self::length(end)?;
        let begin = file
            .checked_sub(length)
            .ok_or(FrameError::Damaged("its index is longer than it is"))?;
        let from = usize::try_from(length)
            .ok()
            .and_then(|length| end.len().checked_sub(length));
        let bytes = &end[from.ok_or(FrameError::Damaged("its index is not all there"))?..];
        let (body, footer) = bytes[HEADER..].split_at(bytes.len() - HEADER - FOOTER);
        if bytes[..HEADER] != header(bytes.len() - HEADER) {
            return Err(FrameError::Damaged("its index has another length"));
        }
        if footer[DIGEST..DIGEST + 8] != digest(body, &footer[..DIGEST]) {
            return Err(FrameError::Damaged("its index has another digest"));
        }
        let index = Self {
            frames: body.chunks_exact(ENTRY).map(entry).collect(),
            text: number(footer, 8),
            lines: number(footer, 16),
            end: begin,
        };
        index.check()?;
        Ok(index)
    }

    /// Its bytes, as they stand at the end of a file.
    pub(super) fn write(frames: &[Frame], text: u64, lines: u64) -> Vec<u8> {
        let mut body = Vec::with_capacity(frames.len() * ENTRY);
        for frame in frames {
            for number in [frame.text, frame.at, frame.line] {
                body.extend(number.to_le_bytes());
            }
            body.extend(frame.time.to_le_bytes());
        }
        let mut footer = Vec::with_capacity(FOOTER);
        for number in [frames.len() as u64, text, lines] {
            footer.extend(number.to_le_bytes());
        }
        let digest = digest(&body, &footer);
        footer.extend(digest);
        footer.extend(MAGIC);
        let mut all = header(body.len() + FOOTER).to_vec();
        all.append(&mut body);
        all.append(&mut footer);
        all
    }

    /// Whether frames follow each other, none empty, none too long.
    fn check(&self) -> Result<(), FrameError> {
        let end = Frame {
            text: self.text,
            at: self.end,
            line: self.lines.saturating_add(1),
            time: 0,
        };
        let first = self.frames.first().copied().unwrap_or(end);
        if (first.text, first.at, first.line) != (0, 0, 1) {
            return Err(FrameError::Damaged("it does not begin at the begin"));
        }
        let most = zstd::zstd_safe::compress_bound(MAX_FRAME) as u64;
        let after = self.frames.iter().skip(1).chain([&end]);
        for (one, next) in self.frames.iter().zip(after) {
            let (Some(text), Some(bytes), Some(lines)) = (
                next.text.checked_sub(one.text),
                next.at.checked_sub(one.at),
                next.line.checked_sub(one.line),
            ) else {
                return Err(FrameError::Damaged("its frames are not in order"));
            };
            let long = text > MAX_FRAME as u64 || bytes > most || lines > text;
            if long || text == 0 || bytes == 0 {
                return Err(FrameError::Damaged("a frame has an impossible length"));
            }
        }
        Ok(())
    }

    /// Bytes of text.
    #[must_use]
    pub fn text(&self) -> u64 {
        self.text
    }

    /// Ends of lines in it.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The frames, in order.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The number of the frame that has this byte of the text; none behind its end.
    #[must_use]
    pub fn frame_of(&self, byte: u64) -> Option<usize> {
        (byte < self.text).then(|| self.frames.partition_point(|frame| frame.text <= byte) - 1)
    }

    /// Where in the file a frame is: [from, to).
    #[must_use]
    pub fn place(&self, frame: usize) -> (u64, u64) {
        let at = |frame: usize| self.frames.get(frame).map_or(self.end, |frame| frame.at);
        (at(frame), at(frame + 1))
    }

    /// Where to begin to read for this line, from 1: a byte, and the number of the line that
    /// it is of. No frame before it has anything of the line.
    #[must_use]
    pub fn seek_line(&self, line: u64) -> (u64, u64) {
        // The line begins behind an end of line that is in the frame before the first one
        // whose first byte is of this line or a later one.
        let after = self.frames.partition_point(|frame| frame.line < line);
        let frame = self.frames.get(after.saturating_sub(1));
        frame.map_or((0, 1), |frame| (frame.text, frame.line))
    }

    /// The text of a frame, of its bytes in the file.
    ///
    /// # Errors
    /// [`FrameError::Frame`].
    pub fn open(&self, frame: usize, bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
        let begin = self.frames.get(frame).map_or(self.text, |frame| frame.text);
        let next = self.frames.get(frame + 1);
        let length = next.map_or(self.text, |next| next.text) - begin;
        // At most a frame: the index was checked.
        let length = usize::try_from(length).unwrap_or(MAX_FRAME);
        let text = zstd::bulk::decompress(bytes, length).map_err(FrameError::Frame)?;
        if text.len() == length {
            return Ok(text);
        }
        let short = io::Error::new(
            io::ErrorKind::InvalidData,
            "it is shorter than it should be",
        );
        Err(FrameError::Frame(short))
    }
}

/// What begins a skippable frame of this length.
fn header(length: usize) -> [u8; HEADER] {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let number = u64::from(SKIPPABLE) | (u64::from(length) << 32);
    number.to_le_bytes()
}

fn digest(body: &[u8], footer: &[u8]) -> [u8; 8] {
    let hash = Sha256::new().chain_update(body).chain_update(footer);
    let mut digest = [0; 8];
    digest.copy_from_slice(&hash.finalize()[..8]);
    digest
}

fn entry(bytes: &[u8]) -> Frame {
    Frame {
        text: number(bytes, 0),
        at: number(bytes, 8),
        line: number(bytes, 16),
        time: number(bytes, 24).cast_signed(),
    }
}

/// The number at this place, which is there.
fn number(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
