//! A guest's memory as a file.
//!
//! While a template is made it is a memfd that QEMU maps shared. On disk only
//! what is not zero takes space. A guest gets it as a memfd again, sealed: no
//! holder of the descriptor can ever change it, so a QEMU that its guest took
//! over can't poison the next guest.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::fs::{MemfdFlags, SealFlags};

/// What is copied at once.
const PIECE: usize = 1 << 20;
/// What is looked at for being zero: a page, so that the copy is as sparse as
/// can be.
const PAGE: usize = 4096;

/// Empty memory of this many bytes.
pub(super) fn create(length: u64) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create("guest", flags)?);
    file.set_len(length)?;
    Ok(file)
}

/// Stores memory in a file.
pub(super) fn store(memory: &File, path: &Path) -> io::Result<()> {
    let file = File::create_new(path)?;
    copy_sparse(memory, &file)?;
    file.sync_all()
}

/// As [`store`], without waiting for the disk.
pub(super) fn store_soon(memory: &File, path: &Path) -> io::Result<()> {
    copy_sparse(memory, &File::create_new(path)?)
}

/// Memories by the file that each was loaded from. What is on the disk may be
/// another one by now, of the same name; it is known by the file's own number.
#[derive(Debug, Default)]
pub(super) struct Loaded(Mutex<Vec<(FileId, Arc<OwnedFd>)>>);

type FileId = (u64, u64, i64, i64);

/// How many are kept: each takes what its guest had used, some 200 MB.
const KEPT: usize = 4;

impl Loaded {
    /// This file's memory. Whoever asks while it is loaded waits for it.
    pub fn get(&self, path: &Path) -> io::Result<Arc<OwnedFd>> {
        let id = id(path)?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = all.iter().position(|(other, _)| *other == id) {
            let found = all.remove(at);
            let memory = Arc::clone(&found.1);
            all.push(found);
            return Ok(memory);
        }
        let memory = Arc::new(load(path)?);
        remember(&mut all, id, Arc::clone(&memory));
        Ok(memory)
    }

    /// This is what the file holds.
    pub fn put(&self, path: &Path, memory: OwnedFd) -> io::Result<()> {
        let id = id(path)?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        remember(&mut all, id, Arc::new(memory));
        Ok(())
    }
}

fn id(path: &Path) -> io::Result<FileId> {
    let meta = std::fs::metadata(path)?;
    Ok((meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec()))
}

fn remember(all: &mut Vec<(FileId, Arc<OwnedFd>)>, id: FileId, memory: Arc<OwnedFd>) {
    if all.len() >= KEPT {
        all.remove(0);
    }
    all.push((id, memory));
}

/// Loads memory, or a state, from a file, for any number of guests.
///
/// The file itself is for no QEMU: whoever holds a descriptor of it may open
/// it once more by `/proc/self/fd`, and the mount that it was opened by is the
/// host's, where it may be written.
pub(super) fn load(path: &Path) -> io::Result<OwnedFd> {
    let mut memory = load_own(path)?;
    memory.rewind()?;
    seal(&memory)?;
    Ok(memory.into())
}

/// Loads memory from a file, for one guest that may change it.
pub(super) fn load_own(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    let memory = create(file.metadata()?.len())?;
    copy_sparse(&file, &memory)?;
    Ok(memory)
}

/// Nobody changes it any more. Refused while somebody has it mapped for that.
pub(super) fn seal(memory: &File) -> io::Result<()> {
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    Ok(rustix::fs::fcntl_add_seals(memory, seals)?)
}

/// Copies what is not zero to the same places.
pub(super) fn copy_sparse(mut from: &File, mut to: &File) -> io::Result<()> {
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < length {
        let data = match rustix::fs::seek(from, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data,
            // No data up to the end.
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let hole = rustix::fs::seek(from, rustix::fs::SeekFrom::Hole(data))?;
        from.seek(SeekFrom::Start(data))?;
        at = data;
        while at < hole {
            let wanted = usize::try_from(hole - at).unwrap_or(PIECE).min(PIECE);
            let read = from.read(piece.get_mut(..wanted).unwrap_or_default())?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            write_pages(&mut to, at, piece.get(..read).unwrap_or_default())?;
            at += read as u64;
        }
    }
    Ok(())
}

/// Writes the runs of pages that are not zero.
fn write_pages(to: &mut &File, at: u64, bytes: &[u8]) -> io::Result<()> {
    let zero = |page: &[u8]| page.iter().all(|&byte| byte == 0);
    let pages: Vec<&[u8]> = bytes.chunks(PAGE).collect();
    let mut offset = 0;
    for run in pages.chunk_by(|one, other| zero(one) == zero(other)) {
        let length: usize = run.iter().map(|page| page.len()).sum();
        if run.first().is_some_and(|page| !zero(page)) {
            to.seek(SeekFrom::Start(at + offset as u64))?;
            to.write_all(bytes.get(offset..offset + length).unwrap_or_default())?;
        }
        offset += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn memory_survives_the_disk_and_only_what_is_not_zero_takes_space() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        let memory = create(64 << 20).unwrap();
        memory.write_all_at(b"first", 0).unwrap();
        memory.write_all_at(b"odd", (5 << 20) + 4097).unwrap();
        memory.write_all_at(&[0; 1 << 20], 20 << 20).unwrap();
        memory.write_all_at(b"last", (64 << 20) - 4).unwrap();
        store(&memory, &path).unwrap();
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20);
        let loaded = File::from(load(&path).unwrap());
        let mut bytes = [0; 5];
        loaded.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"first");
        loaded
            .read_exact_at(&mut bytes[..3], (5 << 20) + 4097)
            .unwrap();
        assert_eq!(&bytes[..3], b"odd");
        loaded
            .read_exact_at(&mut bytes[..4], (64 << 20) - 4)
            .unwrap();
        assert_eq!(&bytes[..4], b"last");
    }

    #[test]
    fn loaded_memory_cannot_be_changed_through_its_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        store(&create(1 << 20).unwrap(), &path).unwrap();
        let loaded = File::from(load(&path).unwrap());
        assert!(loaded.write_all_at(b"x", 0).is_err());
        assert!(loaded.set_len(0).is_err());
        assert!(loaded.set_len(2 << 20).is_err());
        assert!(rustix::fs::fcntl_add_seals(&loaded, SealFlags::SHRINK).is_err());
    }
}
