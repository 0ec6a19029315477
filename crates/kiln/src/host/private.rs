//! Secrets: files that only their owner may read, and what this process knows.

use std::{
    fs::{DirBuilder, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use crate::exit::Failure;

/// More is no token and no login.
const MAX: u64 = 64 << 10;

/// Closes this process to others of its user: a worker beside a server could read the server's
/// passwords in `/proc`, or in its memory. Programs that it starts are as open as ever.
///
/// # Errors
/// The kernel's.
pub fn close() -> io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Reads such a file.
///
/// # Errors
/// When it can't be read, or others can read it too.
pub fn read(path: &Path) -> Result<String, Failure> {
    let fail = |why: &dyn std::fmt::Display| Failure::usage(format!("{}: {why}", path.display()));
    let file = File::open(path).map_err(|error| fail(&error))?;
    let meta = file.metadata().map_err(|error| fail(&error))?;
    // A pipe of a shell is its own user's; modes of it mean nothing.
    if meta.is_file() {
        check(meta.mode(), meta.uid(), meta.gid()).map_err(|why| fail(&why))?;
    }
    let mut text = String::new();
    file.take(MAX)
        .read_to_string(&mut text)
        .map_err(|error| fail(&error))?;
    Ok(text)
}

fn check(mode: u32, owner: u32, group: u32) -> Result<(), String> {
    let us = rustix::process::geteuid().as_raw();
    if owner != us && owner != 0 {
        return Err("belongs to another user, who can change it".to_owned());
    }
    match mode & 0o777 {
        _ if mode & 0o077 == 0 => Ok(()),
        // A credential that systemd passes to a service: root's, with an entry for the
        // service's user, whose mask is shown as the group's mode.
        0o440 if owner == 0 && group == 0 => Ok(()),
        _ => Err(format!(
            "others may read it (its mode is {:o}); `chmod 600` it, and if somebody may have read it, make another",
            mode & 0o777
        )),
    }
}

/// Reads a token: a file's only word.
///
/// # Errors
/// As [`read`], and when there is none, or more than one.
pub fn token(path: &Path) -> Result<String, Failure> {
    let text = read(path)?;
    let mut words = text.split_whitespace();
    match (words.next(), words.next()) {
        (Some(token), None) => Ok(token.to_owned()),
        (None, _) => Err(Failure::usage(format!("{}: is empty", path.display()))),
        _ => Err(Failure::usage(format!(
            "{}: has more in it than a token, which is one word",
            path.display()
        ))),
    }
}

/// Writes such a file, whole or not at all, into a directory that is made.
///
/// # Errors
/// When it can't be written.
pub fn write(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let new = path.with_extension("new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_that_others_can_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sub/token");
        write(file.parent().unwrap(), &file, b"kiln_w_x\n").unwrap();
        assert_eq!(token(&file).unwrap(), "kiln_w_x");
        for mode in [0o640, 0o604, 0o660] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = token(&file).unwrap_err().message;
            assert!(
                error.contains("others may read it") && error.contains("chmod 600"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_credential_that_systemd_passes_on_is_read() {
        assert!(check(0o100_440, 0, 0).is_ok());
        for (mode, group) in [(0o100_440, 1000), (0o100_444, 0), (0o100_460, 0)] {
            assert!(check(mode, 0, group).is_err(), "{mode:o} of {group}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        for (text, why) in [("\n", "is empty"), ("a b", "more in it than a token")] {
            write(dir.path(), &file, text.as_bytes()).unwrap();
            let error = token(&file).unwrap_err().message;
            assert!(error.contains(why), "{error}");
        }
    }
}
