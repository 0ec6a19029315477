//! The version of an image: a digest over its directory's files.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// SHA-256 over the sorted relative names and contents, in hexadecimal. A link
/// to a file counts as that file; one to a directory is not followed, for it
/// may lead anywhere, back here included.
pub(super) fn of_directory(dir: &Path) -> io::Result<String> {
    let files = files(dir)?;
    let mut whole = Sha256::new();
    for file in files {
        let name = file.strip_prefix(dir).unwrap_or(&file);
        whole.update(name.as_os_str().as_encoded_bytes());
        whole.update([0]);
        whole.update(of_file(&file)?);
    }
    Ok(hex(&whole.finalize()))
}

/// The same, remembered as long as no file's length, time or place changes.
pub(super) fn remembered(dir: &Path, cache: &Path) -> io::Result<String> {
    let files = files(dir)?;
    let mut signature = Sha256::new();
    for file in &files {
        let meta = std::fs::metadata(file)?;
        let stamp = (
            meta.len(),
            meta.ino(),
            meta.dev(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        );
        signature.update(format!("{} {stamp:?}\n", file.display()));
    }
    let path = cache.join(format!("{}.digest", hex(&signature.finalize())));
    match std::fs::read_to_string(&path) {
        Ok(digest) if is_digest(&digest) => return Ok(digest),
        _ => {}
    }
    let digest = of_directory(dir)?;
    // It is computed again next time, that's all.
    let _ = keep(&path, cache, &digest);
    Ok(digest)
}

/// Whole or not at all: another kiln may be reading.
fn keep(path: &Path, cache: &Path, digest: &str) -> io::Result<()> {
    std::fs::create_dir_all(cache)?;
    let mut file = tempfile::NamedTempFile::new_in(cache)?;
    io::Write::write_all(&mut file, digest.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The directory itself may be a link: `debian/stable` is one.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    collect(dir, &mut files)?;
    files.sort();
    Ok(files)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            if !being_made(&path) {
                collect(&path, files)?;
            }
        } else if kind.is_file() || path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

/// Whether a directory is one that an image's `genimg` works in: `amd64.new-42`
/// becomes `amd64`, or goes.
fn being_made(dir: &Path) -> bool {
    dir.file_name()
        .is_some_and(|name| name.to_string_lossy().contains(".new-"))
}

fn of_file(path: &Path) -> io::Result<impl AsRef<[u8]> + use<>> {
    let mut file = File::open(path)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digest.finalize()),
            length => digest.update(buffer.get(..length).unwrap_or_default()),
        }
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn image() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("amd64")).unwrap();
        fs::write(dir.path().join("functions"), "boot() { :; }").unwrap();
        fs::write(dir.path().join("amd64/root.img.qcow2"), "disk").unwrap();
        dir
    }

    #[test]
    fn links_in_a_circle_and_out_of_the_image_are_not_followed() {
        let image = image();
        let before = of_directory(image.path()).unwrap();
        for name in ["a", "b", "amd64/c"] {
            symlink(image.path(), image.path().join(name)).unwrap();
        }
        symlink("/", image.path().join("root")).unwrap();
        symlink("nowhere", image.path().join("broken")).unwrap();
        assert_eq!(of_directory(image.path()).unwrap(), before);
    }

    #[test]
    fn a_link_to_a_file_is_that_file_and_a_link_to_an_image_that_image() {
        let image = image();
        let before = of_directory(image.path()).unwrap();
        let disk = image.path().join("amd64/root.img.qcow2");
        let elsewhere = tempfile::tempdir().unwrap();
        fs::rename(&disk, elsewhere.path().join("disk")).unwrap();
        symlink(elsewhere.path().join("disk"), &disk).unwrap();
        assert_eq!(of_directory(image.path()).unwrap(), before);
        let stable = elsewhere.path().join("stable");
        symlink(image.path(), &stable).unwrap();
        assert_eq!(of_directory(&stable).unwrap(), before);
        fs::write(elsewhere.path().join("disk"), "other").unwrap();
        assert_ne!(of_directory(image.path()).unwrap(), before);
    }

    #[test]
    fn what_is_being_made_is_no_part_of_the_image() {
        let image = image();
        let before = of_directory(image.path()).unwrap();
        let unfinished = image.path().join("amd64.new-42");
        fs::create_dir(&unfinished).unwrap();
        fs::write(unfinished.join("disk"), "half").unwrap();
        assert_eq!(of_directory(image.path()).unwrap(), before);
    }

    #[test]
    fn a_digest_is_remembered_until_a_file_changes() {
        let (image, cache) = (image(), tempfile::tempdir().unwrap());
        let digest = || remembered(image.path(), cache.path()).unwrap();
        let first = digest();
        assert_eq!(first, of_directory(image.path()).unwrap());
        let kept = || fs::read_dir(cache.path()).unwrap().count();
        assert_eq!((digest(), kept()), (first.clone(), 1));
        fs::write(image.path().join("functions"), "boot() { exit 1; }").unwrap();
        assert_ne!(digest(), first);
    }
}
