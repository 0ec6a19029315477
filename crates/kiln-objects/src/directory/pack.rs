//! Making a log's file a packed one, in a directory.
//!
//! Written aside, read again and compared, and only then put beside the log, which is removed
//! after that. As long as both are there the log counts: so it reads the same at whatever point
//! this stops, and to do it again does no harm.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Seek, Write},
    path::Path,
    time::UNIX_EPOCH,
};

use super::disk;
use crate::frames::{Index, Summary, Writer};

/// What is read at once.
const CHUNK: usize = 64 << 10;

/// Writes the first `stored` bytes of a log to `aside`, packed, on disk, and seen to be what
/// they were.
pub(crate) fn write(log: &mut File, stored: u64, aside: &Path) -> io::Result<Summary> {
    let written = log.metadata()?.modified()?.duration_since(UNIX_EPOCH);
    let micros = written.map_or(0, |since| since.as_micros());
    let time = i64::try_from(micros).unwrap_or(i64::MAX);
    let packed = File::create(aside)?;
    let mut writer = Writer::new(BufWriter::new(packed))?;
    log.rewind()?;
    let mut text = log.take(stored);
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = text.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        writer.push(&buffer[..read], time)?;
    }
    let (mut out, summary) = writer.finish()?;
    out.flush()?;
    out.get_ref().sync_all()?;
    if summary.text != stored {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    log.rewind()?;
    compare(&mut File::open(aside)?, summary.file, log)?;
    Ok(summary)
}

/// Whether a packed log has just this text.
fn compare(packed: &mut File, length: u64, text: &mut File) -> io::Result<()> {
    let index = index(packed, length)?;
    let mut expected = Vec::new();
    for frame in 0..index.frames().len() {
        let (from, to) = index.place(frame);
        let bytes = part(packed, from, to)?;
        let found = index.open(frame, &bytes)?;
        expected.resize(found.len(), 0);
        text.read_exact(&mut expected)?;
        if found != expected {
            return Err(io::Error::other("a packed log is not what it was made of"));
        }
    }
    Ok(())
}

fn index(packed: &mut File, length: u64) -> io::Result<Index> {
    let footer = part(
        packed,
        length.saturating_sub(crate::frames::FOOTER as u64),
        length,
    )?;
    let end = length.saturating_sub(Index::length(&footer)?);
    Ok(Index::read(&part(packed, end, length)?, length)?)
}

fn part(file: &mut File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt as _;

    let mut bytes = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// Puts a packed log in the place that is meant for it, and makes that survive a crash.
pub(crate) fn put(root: &Path, aside: &Path, place: &Path) -> io::Result<()> {
    std::fs::rename(aside, place)?;
    disk::sync_entries(root, place)
}
