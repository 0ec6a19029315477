//! Writing a log as frames.

use std::{
    collections::VecDeque,
    io::{self, Write},
};

use super::{
    FRAME,
    index::{Frame, Index, MAX_INDEX},
};

/// zstd's own default: logs get some ten times smaller, at some hundred MB/s.
const LEVEL: i32 = 3;
/// Frames end with a line, unless that would leave them less than this.
const LEAST: usize = FRAME / 2;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of text.
    pub text: u64,
    /// Bytes of the file.
    pub file: u64,
}

/// Writes a log as frames, in memory for some frames.
pub struct Writer<W> {
    out: W,
    zstd: zstd::bulk::Compressor<'static>,
    frames: Vec<Frame>,
    /// Text that is in no frame yet.
    text: Vec<u8>,
    /// Where pieces with another time begin in the whole text, from the one on that
    /// the first byte of `text` is of.
    times: VecDeque<(u64, i64)>,
    /// Text in frames.
    written: u64,
    /// The file's length.
    at: u64,
    /// Ends of lines in frames.
    lines: u64,
}

impl<W: Write> Writer<W> {
    /// Writes to `out`, from its begin on.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new(out: W) -> io::Result<Self> {
        let mut zstd = zstd::bulk::Compressor::new(LEVEL)?;
        zstd.include_checksum(true)?;
        Ok(Self {
            out,
            zstd,
            frames: Vec::new(),
            text: Vec::new(),
            times: VecDeque::new(),
            written: 0,
            at: 0,
            lines: 0,
        })
    }

    /// Adds text that was stored at `time` (microseconds since 1970).
    ///
    /// # Errors
    /// Those of `out`; and when the log is too long for an index.
    pub fn push(&mut self, mut text: &[u8], time: i64) -> io::Result<()> {
        while !text.is_empty() {
            if self.times.back().is_none_or(|(_, last)| *last != time) {
                self.times
                    .push_back((self.written + self.text.len() as u64, time));
            }
            let (some, rest) = text.split_at(text.len().min(FRAME - self.text.len()));
            self.text.extend_from_slice(some);
            text = rest;
            if self.text.len() == FRAME {
                self.frame(cut(&self.text))?;
            }
        }
        Ok(())
    }

    /// What it was given to write to: whoever writes to memory may take from it what is there.
    pub fn out(&mut self) -> &mut W {
        &mut self.out
    }

    /// Writes the rest and the index. Gives what it was given to write to.
    ///
    /// # Errors
    /// Those of `out`; and when the log is too long for an index.
    pub fn finish(mut self) -> io::Result<(W, Summary)> {
        if !self.text.is_empty() {
            self.frame(self.text.len())?;
        }
        let index = Index::write(&self.frames, self.written, self.lines);
        if index.len() as u64 > MAX_INDEX {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the log is too long to be packed",
            ));
        }
        self.out.write_all(&index)?;
        let summary = Summary {
            text: self.written,
            file: self.at + index.len() as u64,
        };
        Ok((self.out, summary))
    }

    /// Makes a frame of the first bytes of what waits.
    fn frame(&mut self, length: usize) -> io::Result<()> {
        // Of the first byte's piece, and later ones.
        while self
            .times
            .get(1)
            .is_some_and(|(from, _)| *from <= self.written)
        {
            self.times.pop_front();
        }
        let text = &self.text[..length];
        let bytes = self.zstd.compress(text)?;
        self.frames.push(Frame {
            text: self.written,
            at: self.at,
            line: self.lines + 1,
            time: self.times.front().map_or(0, |(_, time)| *time),
        });
        self.out.write_all(&bytes)?;
        self.at += bytes.len() as u64;
        self.written += length as u64;
        self.lines += text.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.text.drain(..length);
        Ok(())
    }
}

/// How much of a full frame's text goes into it: whole lines, if those are most of it.
fn cut(text: &[u8]) -> usize {
    let end = text.iter().rposition(|byte| *byte == b'\n');
    match end {
        Some(end) if end >= LEAST => end + 1,
        _ => text.len(),
    }
}
