//! A command while it runs.

use std::{
    fs,
    io::{Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::ended::{self, Ended};

/// One of two: guests at once.
pub struct Turn;

static TAKEN: Mutex<u8> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();
const AT_ONCE: u8 = 2;

impl Turn {
    /// Waits for it.
    pub fn take() -> Self {
        let free = GIVEN_BACK.wait_while(open(&TAKEN), |taken| *taken == AT_ONCE);
        *free.unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *open(&TAKEN) -= 1;
        GIVEN_BACK.notify_one();
    }
}

/// A failed test poisons; the others go on.
fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a program has said so far, and whether whoever could say more has ended.
#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    ended: bool,
}

struct Heard(Arc<(Mutex<Said>, Condvar)>);

impl Heard {
    fn listen(stream: Option<impl Read + Send + 'static>) -> Self {
        let heard = Arc::<(Mutex<Said>, Condvar)>::default();
        let (said, mut stream) = (Arc::clone(&heard), stream.expect("a pipe"));
        std::thread::spawn(move || {
            let mut piece = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = stream.read(&mut piece) {
                open(&said.0).bytes.extend_from_slice(&piece[..length]);
                said.1.notify_all();
            }
            open(&said.0).ended = true;
            said.1.notify_all();
        });
        Self(heard)
    }

    fn so_far(&self) -> Vec<u8> {
        open(&self.0.0).bytes.clone()
    }

    fn ended(&self) -> bool {
        open(&self.0.0).ended
    }

    fn wait_for(&self, text: &str, limit: Duration) -> bool {
        let has = |said: &Said| String::from_utf8_lossy(&said.bytes).contains(text);
        let go_on = |said: &mut Said| !has(said) && !said.ended;
        let (said, changed) = &*self.0;
        let waited = changed.wait_timeout_while(open(said), limit, go_on);
        has(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

/// A command that runs. Dropped, it is killed.
pub struct Running {
    child: Child,
    stdout: Heard,
    stderr: Heard,
    what: String,
    runs: PathBuf,
    home: Option<Arc<TempDir>>,
    since: Instant,
    limit: Duration,
    _turn: Option<Turn>,
}

impl Running {
    pub(super) fn start(
        command: &mut Command,
        what: String,
        stdin: Vec<u8>,
        limit: Duration,
        turn: Option<Turn>,
    ) -> Self {
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let input = child.stdin.take();
        // It need not read what it is given.
        std::thread::spawn(move || input.map(|mut input| input.write_all(&stdin)));
        Self {
            stdout: Heard::listen(child.stdout.take()),
            stderr: Heard::listen(child.stderr.take()),
            what,
            runs: PathBuf::new(),
            home: None,
            since: Instant::now(),
            limit,
            child,
            _turn: turn,
        }
    }

    pub(super) fn of(mut self, home: Arc<TempDir>, runs: PathBuf) -> Self {
        self.runs = runs;
        self.home = Some(home);
        self
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder of its run, which is called after its process.
    pub fn folder(&self) -> PathBuf {
        folder(&self.runs, self.pid())
    }

    /// The same, if it is there yet.
    pub fn try_folder(&self) -> Option<PathBuf> {
        self.folder_if_any()
    }

    /// Waits until standard output has this text.
    #[track_caller]
    pub fn wait_for_stdout(&self, text: &str) -> &Self {
        let found = self.stdout.wait_for(text, self.left());
        assert!(
            found,
            "`{text}` is not in standard output:\n{}",
            self.said()
        );
        self
    }

    /// Waits until standard error has this text.
    #[track_caller]
    pub fn wait_for_stderr(&self, text: &str) -> &Self {
        let found = self.stderr.wait_for(text, self.left());
        assert!(found, "`{text}` is not in standard error:\n{}", self.said());
        self
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), signal).expect("it takes signals");
    }

    /// What it has written to standard output.
    pub fn stdout_so_far(&self) -> Vec<u8> {
        self.stdout.so_far()
    }

    /// What it has written to standard error.
    pub fn stderr_so_far(&self) -> String {
        String::from_utf8_lossy(&self.stderr.so_far()).into_owned()
    }

    /// From now on it may take so long.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = self.since.elapsed() + limit;
        self
    }

    /// Waits for its end, whatever that is.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        let status = loop {
            let status = self.child.try_wait().expect("our own child");
            // What it left in the background must not hold its output.
            if let (Some(status), true, true) = (status, self.stdout.ended(), self.stderr.ended()) {
                break status;
            }
            if self.left().is_zero() {
                let said = self.said();
                self.kill();
                panic!(
                    "killed after {:?} (status so far: {status:?}): {said}",
                    self.limit
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        Ended {
            what: self.what.clone(),
            status,
            took: self.since.elapsed(),
            folder: self.folder_if_any(),
            _home: self.home.take(),
            stdout: self.stdout.so_far(),
            stderr: self.stderr.so_far(),
        }
    }

    /// Waits for its end; the test fails unless that is this status.
    #[track_caller]
    pub fn expect_status(self, status: i32) -> Ended {
        let ended = self.end();
        assert_eq!(
            ended.status.code(),
            Some(status),
            "wrong exit status of {ended}"
        );
        ended
    }

    fn folder_if_any(&self) -> Option<PathBuf> {
        find_folder(&self.runs, self.pid())
    }

    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.since.elapsed())
    }

    fn said(&self) -> String {
        ended::say(&self.what, &self.stdout.so_far(), &self.stderr.so_far())
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn folder(runs: &Path, pid: u32) -> PathBuf {
    find_folder(runs, pid)
        .unwrap_or_else(|| panic!("process {pid} has no run in {}", runs.display()))
}

fn find_folder(runs: &Path, pid: u32) -> Option<PathBuf> {
    let entries = fs::read_dir(runs).into_iter().flatten().flatten();
    let end = format!("-{pid}");
    entries.map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(&end) && !name.starts_with('.')
    })
}
