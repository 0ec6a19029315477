//! What kiln looks at in a disk before QEMU opens it.
//!
//! A disk is hostile: a qcow2 may name any file of the host as its backing or
//! data file, and QEMU would open it. So the header is read here, and such a
//! disk is refused. Format: QEMU's docs/interop/qcow2.txt.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
};

use rustix::fs::{Mode, OFlags};

const MAGIC: [u8; 4] = *b"QFI\xfb";
/// The fixed header of version 3, up to and with `incompatible_features`.
const HEADER_LEN: usize = 80;
/// Bit 2 of `incompatible_features`: the data is in another file.
const EXTERNAL_DATA: u64 = 1 << 2;
/// More than any image of a distribution; a header may say anything.
const MAX_VIRTUAL_SIZE: u64 = 2 << 40;

/// Bits 9 to 55 of a table's entry.
const OFFSET_BITS: u64 = 0x00ff_ffff_ffff_fe00;
/// Where the name of a backing file ends at the latest: in the first cluster.
const MAX_BACKING: usize = 64 << 10;
/// QEMU's own limit (32 MiB of table).
const MAX_L1_ENTRIES: u32 = 4 << 20;

/// What a disk's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// How large the guest sees it, in bytes.
    pub virtual_size: u64,
}

/// Why a disk is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It can't be read.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("is no qcow2 file; convert it with `qemu-img convert -O qcow2`")]
    NotQcow2,
    /// A version that nobody knows.
    #[error("is a qcow2 file of version {0}; kiln knows 2 and 3")]
    Version(u32),
    /// It would make QEMU open another file.
    #[error("refers to another file ({0}); make it whole with `qemu-img convert -O qcow2`")]
    External(&'static str),
    /// It is larger than makes sense.
    #[error("says that it is {0} bytes large; the limit is 2 TiB")]
    Huge(u64),
    /// Its own tables lie behind its end.
    #[error("is cut short; build or copy it again")]
    CutShort,
    /// It has no size.
    #[error("says that it is empty")]
    Empty,
}

/// Reads and checks a disk's header.
///
/// # Errors
/// [`Refused`].
pub fn inspect(path: &Path) -> Result<Disk, Refused> {
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() {
        return Err(Refused::NotQcow2);
    }
    let mut header = Vec::with_capacity(HEADER_LEN);
    let mut file = File::open(path)?;
    (&mut file)
        .take(HEADER_LEN as u64)
        .read_to_end(&mut header)?;
    let disk = parse(&header)?;
    if whole(&mut file, &header, meta.len())? {
        Ok(disk)
    } else {
        Err(Refused::CutShort)
    }
}

/// Whether the first level of the disk's map, and what it refers to, begins
/// inside the file. The rest is QEMU's to find damaged.
fn whole(file: &mut File, header: &[u8], length: u64) -> io::Result<bool> {
    let (Some(entries), Some(offset)) = (be32(header, 36), be64(header, 40)) else {
        return Ok(false);
    };
    let size = u64::from(entries) * 8;
    if entries > MAX_L1_ENTRIES || offset.checked_add(size).is_none_or(|end| end > length) {
        return Ok(false);
    }
    let mut table = Vec::new();
    file.seek(SeekFrom::Start(offset))?;
    file.take(size).read_to_end(&mut table)?;
    let mut entries = table.chunks_exact(8).filter_map(|entry| be64(entry, 0));
    Ok(entries.all(|entry| entry & OFFSET_BITS < length))
}

fn parse(header: &[u8]) -> Result<Disk, Refused> {
    if header.get(..4) != Some(&MAGIC) {
        return Err(Refused::NotQcow2);
    }
    let version = be32(header, 4).ok_or(Refused::NotQcow2)?;
    let backing = be64(header, 8).ok_or(Refused::NotQcow2)?;
    let virtual_size = be64(header, 24).ok_or(Refused::NotQcow2)?;
    let incompatible = match version {
        2 => 0,
        3 => be64(header, 72).ok_or(Refused::NotQcow2)?,
        other => return Err(Refused::Version(other)),
    };
    if backing != 0 {
        return Err(Refused::External("a backing file"));
    }
    if incompatible & EXTERNAL_DATA != 0 {
        return Err(Refused::External("an external data file"));
    }
    match virtual_size {
        0 => Err(Refused::Empty),
        size if size > MAX_VIRTUAL_SIZE => Err(Refused::Huge(size)),
        virtual_size => Ok(Disk { virtual_size }),
    }
}

/// Checks a layer that a guest wrote to: whoever wrote its header may have been
/// hostile, or have put something else in its place. It must be a file that
/// lies over this one, by this very name, and names no other.
///
/// # Errors
/// [`Refused`].
pub fn inspect_layer(path: &Path, below: &Path) -> Result<(), Refused> {
    let mut header = Vec::new();
    let limit = (HEADER_LEN + MAX_BACKING) as u64;
    // A pipe without an end to write to would be waited for.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, OFlags::RDONLY | flags, Mode::empty());
    let file = File::from(file.map_err(io::Error::from)?);
    let meta = file.metadata()?;
    if !meta.is_file() || meta.nlink() != 1 {
        return Err(Refused::NotQcow2);
    }
    file.take(limit).read_to_end(&mut header)?;
    if header.get(..4) != Some(&MAGIC) {
        return Err(Refused::NotQcow2);
    }
    match be32(&header, 4) {
        Some(3) => {}
        Some(other) => return Err(Refused::Version(other)),
        None => return Err(Refused::NotQcow2),
    }
    let external = be64(&header, 72).is_none_or(|features| features & EXTERNAL_DATA != 0);
    if external {
        return Err(Refused::External("an external data file"));
    }
    let name = be64(&header, 8).zip(be32(&header, 16));
    let name = name.and_then(|(at, length)| {
        let at = usize::try_from(at).ok()?;
        header.get(at..at.checked_add(usize::try_from(length).ok()?)?)
    });
    match name {
        Some(name) if name == below.as_os_str().as_bytes() => Ok(()),
        _ => Err(Refused::External("a backing file that is not its own")),
    }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    word.try_into().ok().map(u32::from_be_bytes)
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    let word = bytes.get(at..at + 8)?;
    word.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(version: u32, backing: u64, size: u64, incompatible: u64) -> Vec<u8> {
        let mut header = vec![0; HEADER_LEN];
        header[..4].copy_from_slice(&MAGIC);
        header[4..8].copy_from_slice(&version.to_be_bytes());
        header[8..16].copy_from_slice(&backing.to_be_bytes());
        header[24..32].copy_from_slice(&size.to_be_bytes());
        header[72..80].copy_from_slice(&incompatible.to_be_bytes());
        header
    }

    #[test]
    fn a_layer_must_lie_over_its_own_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layer");
        let written = |name: &str, incompatible: u64| {
            let mut header = header(3, 200, 1 << 30, incompatible);
            header[16..20].copy_from_slice(&u32::try_from(name.len()).unwrap().to_be_bytes());
            header.resize(200, 0);
            header.extend(name.bytes());
            std::fs::write(&path, header).unwrap();
            inspect_layer(&path, Path::new("/base/disk"))
        };
        assert!(written("/base/disk", 0).is_ok());
        assert!(written("/etc/shadow", 0).is_err());
        assert!(written("/base/disk2", 0).is_err());
        assert!(written("/base/disk", EXTERNAL_DATA).is_err());
    }

    #[test]
    fn what_is_in_a_layers_place_must_be_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let below = Path::new("/base/disk");
        let mut layer = header(3, 80, 1 << 30, 0);
        layer[16..20].copy_from_slice(&10u32.to_be_bytes());
        layer.extend(b"/base/disk");
        let real = dir.path().join("real");
        std::fs::write(&real, layer).unwrap();
        assert!(inspect_layer(&real, below).is_ok());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(matches!(inspect_layer(&link, below), Err(Refused::Io(_))));
        // Nobody writes to it, for which opening it would wait.
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RWXU).unwrap();
        assert!(matches!(
            inspect_layer(&pipe, below),
            Err(Refused::NotQcow2)
        ));
    }

    #[test]
    fn a_plain_disk_is_accepted() {
        let disk = parse(&header(3, 0, 1 << 30, 0)).unwrap();
        assert_eq!(disk.virtual_size, 1 << 30);
    }

    #[test]
    fn a_disk_that_refers_to_another_file_is_refused() {
        let backing = parse(&header(2, 512, 1 << 30, 0));
        assert!(matches!(backing, Err(Refused::External("a backing file"))));
        let data = parse(&header(3, 0, 1 << 30, EXTERNAL_DATA));
        assert!(matches!(
            data,
            Err(Refused::External("an external data file"))
        ));
    }

    #[test]
    fn a_disk_of_a_size_that_makes_no_sense_is_refused() {
        assert!(matches!(parse(&header(3, 0, 0, 0)), Err(Refused::Empty)));
        let huge = parse(&header(3, 0, u64::MAX, 0));
        assert!(matches!(huge, Err(Refused::Huge(_))));
    }

    #[test]
    fn a_disk_whose_tables_are_missing_is_cut_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let mut disk = header(3, 0, 1 << 30, 0);
        disk[36..40].copy_from_slice(&2u32.to_be_bytes());
        disk[40..48].copy_from_slice(&(HEADER_LEN as u64).to_be_bytes());
        disk.extend(0u64.to_be_bytes());
        std::fs::write(&path, &disk).unwrap();
        assert!(matches!(inspect(&path), Err(Refused::CutShort)));
        disk.extend(((1u64 << 63) | 0x10000).to_be_bytes());
        std::fs::write(&path, &disk).unwrap();
        assert!(matches!(inspect(&path), Err(Refused::CutShort)));
        disk.resize(0x20000, 0);
        std::fs::write(&path, &disk).unwrap();
        assert!(inspect(&path).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(&bytes);
            let mut named = MAGIC.to_vec();
            named.extend(bytes);
            let _ = parse(&named);
        }
    }
}
