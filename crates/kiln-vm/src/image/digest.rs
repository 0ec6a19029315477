//! The version of an image: a digest over its directory's files.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// SHA-256 over the sorted relative names and contents, in hexadecimal. Links
/// count as what they point to.
pub(super) fn of_directory(dir: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    collect(dir, &mut files)?;
    files.sort();
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
    let mut files = Vec::new();
    collect(dir, &mut files)?;
    files.sort();
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
    if let Ok(digest) = std::fs::read_to_string(&path) {
        return Ok(digest);
    }
    let digest = of_directory(dir)?;
    // It is computed again next time, that's all.
    let _ = std::fs::create_dir_all(cache).and_then(|()| std::fs::write(&path, &digest));
    Ok(digest)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
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
