//! Files that a user names: they may be pipes, devices or larger than memory.

use std::{
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::OFlags,
};

/// How long a pipe may say nothing. Time enough to type a passphrase for what
/// fills it: `--secret key=<(pass show key)`.
const SILENCE: Duration = Duration::from_secs(60);

/// Reads to the end, but no more than this.
///
/// # Errors
/// When the file can't be read, or is a pipe that stays silent.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::Error::other("is a directory"));
    }
    let mut bytes = Vec::new();
    let mut rest = (&file).take(limit);
    loop {
        match rest.read_to_end(&mut bytes) {
            Ok(_) if bytes.is_empty() && kind.is_fifo() => return Err(silent()),
            Ok(_) => return Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut ready = [PollFd::new(&file, PollFlags::IN)];
                let patience = Timespec::try_from(SILENCE).map_err(io::Error::other)?;
                if rustix::event::poll(&mut ready, Some(&patience))? == 0 {
                    return Err(silent());
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn silent() -> io::Error {
    io::Error::other("is a pipe that nobody writes into")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_read_to_its_end_and_one_without_a_writer_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let mode = rustix::fs::Mode::from_bits_truncate(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(read(&pipe, 10).is_err());
        // Both ways at once, as Linux has it, so that nobody waits for the other.
        let mut writer = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&pipe)
            .unwrap();
        let reader = std::thread::spawn(move || read(&pipe, 5).unwrap());
        io::Write::write_all(&mut writer, b"hello, world").unwrap();
        assert_eq!(reader.join().unwrap(), b"hello");
    }

    #[test]
    fn a_device_without_an_end_gives_no_more_than_asked_for() {
        assert_eq!(read(Path::new("/dev/zero"), 3).unwrap(), [0; 3]);
    }
}
