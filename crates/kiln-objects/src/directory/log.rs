//! One log: its lock, its file, and where what is stored of it ends.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    sync::{Mutex, OwnedMutexGuard, watch},
};

use super::{disk, pack};
use crate::{
    AppendError, Reader,
    packed::{Packed, ReadAt},
    table::Watched,
};

/// A log that is smaller stays as it is: a file takes no less room.
const SMALL: u64 = 4096;

/// What is compared at once with what is there already.
const COMPARED: usize = 64 << 10;

/// A log that somebody uses, or used lately.
#[derive(Debug)]
pub(crate) struct Log {
    root: PathBuf,
    path: PathBuf,
    state: Arc<Mutex<State>>,
    /// Where what is stored ends. Those who watch are told with each growth.
    stored: watch::Sender<u64>,
    /// Whether `stored` is known: the file was looked at.
    loaded: AtomicBool,
    /// Once it is packed, and grows no more.
    packed: OnceLock<Packed>,
}

#[derive(Debug, Default)]
struct State {
    /// Open as long as the log is in the table, once there is one.
    file: Option<File>,
}

impl Log {
    pub(crate) fn new(root: PathBuf, path: PathBuf) -> Self {
        Self {
            root,
            path,
            state: Arc::default(),
            stored: watch::Sender::new(0),
            loaded: AtomicBool::new(false),
            packed: OnceLock::new(),
        }
    }

    /// The file of the packed log.
    fn packed_path(&self) -> PathBuf {
        self.path.with_extension("zst")
    }

    /// Reads bytes [from, to), which are stored.
    pub(crate) async fn read(&self, from: u64, to: u64) -> io::Result<Reader> {
        if let Some(packed) = self.packed.get() {
            return Ok(packed.read(from, to));
        }
        match tokio::fs::File::open(&self.path).await {
            Ok(mut file) => {
                file.seek(io::SeekFrom::Start(from)).await?;
                Ok(Box::new(file.take(to - from)))
            }
            // It was packed in between.
            Err(error) => match self.packed.get() {
                Some(packed) => Ok(packed.read(from, to)),
                None => Err(error),
            },
        }
    }

    /// Where to begin to read for a line: see [`crate::Objects::seek_line`].
    pub(crate) fn seek_line(&self, line: u64) -> (u64, u64) {
        let packed = self.packed.get();
        packed.map_or((0, 1), |packed| packed.index.seek_line(line))
    }

    /// Where it ends, if its file was looked at already.
    pub(crate) fn known(&self) -> Option<u64> {
        let loaded = self.loaded.load(Ordering::Acquire);
        loaded.then(|| *self.stored.borrow())
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.stored.subscribe()
    }

    pub(crate) async fn lock(self: Arc<Self>) -> io::Result<LockedLog> {
        let state = Arc::clone(&self.state).lock_owned().await;
        let mut locked = LockedLog { log: self, state };
        if locked.log.known().is_some() {
            return Ok(locked);
        }
        let locked = disk::blocking(move || {
            locked.load()?;
            Ok::<_, io::Error>(locked)
        });
        let locked = locked.await?;
        if locked.state.file.is_none() {
            locked.load_packed().await?;
        }
        locked.log.loaded.store(true, Ordering::Release);
        Ok(locked)
    }
}

impl Watched for Log {
    fn is_watched(&self) -> bool {
        self.stored.receiver_count() > 0
    }
}

/// A log that nobody else appends to.
#[derive(Debug)]
pub(crate) struct LockedLog {
    log: Arc<Log>,
    state: OwnedMutexGuard<State>,
}

impl LockedLog {
    /// Where it ends, as it is on disk.
    pub(crate) fn stored(&self) -> u64 {
        *self.log.stored.borrow()
    }

    /// Adds bytes at `offset`; what is there already is skipped if it is the same. Gives
    /// where the log ends when all of it is on disk (fsync). An append that was begun ends,
    /// also when nobody waits for it any more.
    pub(crate) async fn append(mut self, offset: u64, bytes: Bytes) -> Result<u64, AppendError> {
        disk::blocking(move || self.append_at(offset, &bytes)).await
    }

    /// Adds lines of the server's own.
    pub(crate) async fn append_text(mut self, text: String) -> io::Result<u64> {
        disk::blocking(move || {
            let mut text = text.into_bytes();
            if self.is_mid_line()? {
                text.insert(0, b'\n');
            }
            self.add(&text)
        })
        .await
    }

    /// Looks at the file. What is there and was not acknowledged, after a crash, counts
    /// once it is on disk.
    fn load(&mut self) -> io::Result<()> {
        let opened = File::options().read(true).write(true).open(&self.log.path);
        match opened {
            Ok(file) => {
                file.sync_all()?;
                self.log.stored.send_replace(file.metadata()?.len());
                self.state.file = Some(file);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Looks for the packed log, when there is no other.
    async fn load_packed(&self) -> io::Result<()> {
        let file = match tokio::fs::File::open(self.log.packed_path()).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let length = file.metadata().await?.len();
        let bytes: Arc<dyn ReadAt> = Arc::new(Arc::new(file.into_std().await));
        let packed = Packed::open(bytes, length).await?;
        self.log.stored.send_replace(packed.index.text());
        // Nobody else can have set it: this has the lock.
        let _ = self.log.packed.set(packed);
        Ok(())
    }

    /// Packs it, by way of the file `aside`, if that makes it smaller. Gives how many bytes it
    /// takes then. Nothing can be added to it any more.
    ///
    /// # Errors
    /// When the disk fails; then it is as it was.
    pub(crate) async fn pack(mut self, aside: PathBuf) -> io::Result<u64> {
        if let Some(packed) = self.log.packed.get() {
            return Ok(packed.length);
        }
        let stored = self.stored();
        if stored < SMALL {
            return Ok(stored);
        }
        let locked = disk::blocking(move || {
            let Some(file) = &mut self.state.file else {
                return Err(io::ErrorKind::NotFound.into());
            };
            let written = pack::write(file, stored, &aside)
                .and_then(|_| pack::put(&self.log.root, &aside, &self.log.packed_path()));
            if written.is_err() {
                // What stays is removed at the next opening.
                let _ = std::fs::remove_file(&aside);
            }
            written.map(|()| self)
        });
        let mut locked = locked.await?;
        // Who reads from here on finds it before the other one is gone.
        locked.load_packed().await?;
        locked.state.file = None;
        disk::blocking(move || {
            std::fs::remove_file(&locked.log.path)?;
            disk::sync_entries(&locked.log.root, &locked.log.path)?;
            Ok(locked
                .log
                .packed
                .get()
                .map_or(stored, |packed| packed.length))
        })
        .await
    }

    fn append_at(&mut self, offset: u64, bytes: &[u8]) -> Result<u64, AppendError> {
        let stored = self.stored();
        let Some(before) = stored.checked_sub(offset) else {
            return Err(AppendError::Offset { stored });
        };
        let there = usize::try_from(before).unwrap_or(usize::MAX);
        let (old, new) = bytes.split_at(there.min(bytes.len()));
        if !self.has(offset, old)? {
            return Err(AppendError::Offset { stored });
        }
        if new.is_empty() {
            return Ok(stored);
        }
        if self.log.packed.get().is_some() {
            return Err(AppendError::Offset { stored });
        }
        Ok(self.add(new)?)
    }

    /// Whether these bytes are there.
    fn has(&self, mut offset: u64, bytes: &[u8]) -> io::Result<bool> {
        let Some(file) = &self.state.file else {
            // Of a packed one only that is known which was acknowledged before.
            return Ok(bytes.is_empty());
        };
        let mut buffer = [0; COMPARED];
        for part in bytes.chunks(COMPARED) {
            let there = &mut buffer[..part.len()];
            file.read_exact_at(there, offset)?;
            if there != part {
                return Ok(false);
            }
            offset += part.len() as u64;
        }
        Ok(true)
    }

    fn is_mid_line(&self) -> io::Result<bool> {
        match (self.stored(), &self.state.file) {
            (0, _) | (_, None) => Ok(false),
            (stored, Some(file)) => {
                let mut last = [0];
                file.read_exact_at(&mut last, stored - 1)?;
                Ok(last != *b"\n")
            }
        }
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<u64> {
        if self.log.packed.get().is_some() {
            return Err(io::Error::other(
                "the log was packed: nothing is added to it",
            ));
        }
        let stored = self.stored();
        let file = self.file()?;
        let written = file
            .write_all_at(bytes, stored)
            .and_then(|()| file.sync_data());
        if let Err(error) = written {
            // After a failed fsync the kernel takes the bytes for written: without them, and
            // with a new try that writes them again, nothing is acknowledged that is not there.
            if let Err(worse) = file.set_len(stored) {
                tracing::error!("a log can't be cut back after a failed append: {worse}");
                self.log.loaded.store(false, Ordering::Release);
            }
            return Err(error);
        }
        let end = stored + bytes.len() as u64;
        self.log.stored.send_replace(end);
        Ok(end)
    }

    fn file(&mut self) -> io::Result<&File> {
        let made = match self.state.file.take() {
            Some(file) => file,
            None => self.create()?,
        };
        Ok(self.state.file.insert(made))
    }

    fn create(&self) -> io::Result<File> {
        let path = &self.log.path;
        if let Some(parent) = path.parent() {
            disk::make(parent)?;
        }
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false);
        let file = file.open(path)?;
        disk::sync_entries(&self.log.root, path)?;
        Ok(file)
    }
}
