//! A process of the farm: started again when it ended, as systemd would.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::Command,
    sync::{Mutex, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// How soon a process that ended is started again.
const AGAIN: Duration = Duration::from_secs(1);
/// The least, in seconds, by which a clock is put elsewhere: more than a look at it may be late.
pub const LEAP: i64 = 600;
/// How long one that was asked to end may take.
const LEAVE: Duration = Duration::from_secs(120);

/// How a process is started.
pub struct Program {
    pub name: String,
    pub file: PathBuf,
    pub words: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Where its output goes.
    pub log: PathBuf,
    /// Where its clock's fault stands, if it may have one.
    pub clock: Option<PathBuf>,
}

/// A process that is kept running.
pub struct Process {
    pub name: String,
    log: PathBuf,
    clock: Option<PathBuf>,
    wish: watch::Sender<bool>,
    /// Who makes another version of it. The next waits.
    rolling: Mutex<()>,
    pid: Arc<AtomicU32>,
    starts: Arc<AtomicU32>,
    keeper: JoinHandle<()>,
}

impl Process {
    pub fn start(program: Program) -> Self {
        let wish = watch::Sender::new(true);
        let pid = Arc::new(AtomicU32::new(0));
        let starts = Arc::new(AtomicU32::new(0));
        let name = program.name.clone();
        let log = program.log.clone();
        let clock = program.clock.clone().filter(|_| faketime().is_some());
        if let Some(clock) = &clock {
            write_clock(clock, 0);
        }
        let keeping = keep(
            program,
            wish.subscribe(),
            Arc::clone(&pid),
            Arc::clone(&starts),
        );
        Self {
            name,
            log,
            clock,
            wish,
            rolling: Mutex::new(()),
            pid,
            starts,
            keeper: tokio::spawn(keeping),
        }
    }

    /// Sends a signal, if it runs; whether it did.
    pub fn signal(&self, signal: Signal) -> bool {
        let pid = self.pid.load(Ordering::Acquire);
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// Waits until it runs, where it has just ended by itself.
    pub async fn runs(&self) {
        let running = async {
            while self.pid.load(Ordering::Acquire) == 0 {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = timeout(10 * AGAIN, running).await;
    }

    /// Ends it as a power cut would, and keeps it down until [`Self::up`]; whether it ran.
    pub fn kill(&self) -> bool {
        self.wish.send_replace(false);
        self.signal(Signal::KILL)
    }

    pub fn up(&self) {
        self.wish.send_replace(true);
    }

    /// Asks it to end, waits until it has, and starts it again; whether it did.
    pub async fn roll(&self) -> bool {
        let _one = self.rolling.lock().await;
        let left = self.leave().await;
        self.up();
        left
    }

    async fn leave(&self) -> bool {
        self.wish.send_replace(false);
        self.signal(Signal::TERM);
        let gone = async {
            while self.pid.load(Ordering::Acquire) != 0 {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let left = timeout(LEAVE, gone).await.is_ok();
        if !left {
            self.signal(Signal::KILL);
        }
        left
    }

    /// Whether its clock can be put elsewhere.
    pub fn has_clock(&self) -> bool {
        self.clock.is_some()
    }

    /// Puts its clock so many seconds away from the host's.
    pub fn put_clock(&self, seconds: i64) {
        if let Some(clock) = &self.clock {
            write_clock(clock, seconds);
        }
    }

    /// How much it has said so far, in bytes.
    pub fn said(&self) -> usize {
        fs::read(&self.log).map_or(0, |text| text.len())
    }

    /// Whether a line of its log, from this byte on, is as many seconds away from the host's
    /// clock as its clock is to be.
    pub fn tells(&self, from: usize, seconds: i64) -> bool {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(text.get(from..).unwrap_or_default());
        text.lines().any(|line| {
            let moment = line.split(' ').next().and_then(|word| word.parse().ok());
            moment.is_some_and(|moment| is_away(moment, seconds))
        })
    }

    /// How often it was started.
    pub fn starts(&self) -> u32 {
        self.starts.load(Ordering::Relaxed)
    }

    /// Ends it for good.
    pub async fn end(self) {
        self.kill();
        self.keeper.abort();
        let _ = self.keeper.await;
    }
}

/// Whether a moment of now, or of a little earlier, was told by a clock that is so far away.
pub fn is_away(moment: Timestamp, seconds: i64) -> bool {
    let away = moment.as_second() - Timestamp::now().as_second();
    (away - seconds).abs() < LEAP / 2
}

/// In one step: it is read at any time.
fn write_clock(path: &Path, seconds: i64) {
    let new = path.with_extension("new");
    fs::write(&new, format!("{seconds:+}\n")).expect("a file");
    fs::rename(&new, path).expect("a file");
}

async fn keep(
    program: Program,
    mut wish: watch::Receiver<bool>,
    pid: Arc<AtomicU32>,
    starts: Arc<AtomicU32>,
) {
    while wish.wait_for(|up| *up).await.is_ok() {
        let mut child = command(&program).spawn().expect("a process");
        starts.fetch_add(1, Ordering::Relaxed);
        pid.store(child.id().unwrap_or(0), Ordering::Release);
        // A kill that came before the number was known.
        if !*wish.borrow() {
            let _ = child.start_kill();
        }
        let ended = child.wait().await;
        pid.store(0, Ordering::Release);
        if *wish.borrow() {
            tell(
                &program.log,
                &format!("chaos: it ended by itself: {ended:?}"),
            );
            sleep(AGAIN).await;
        }
    }
}

fn tell(log: &Path, line: &str) {
    use std::io::Write as _;
    let _ = writeln!(open(log), "{line}");
}

fn open(log: &Path) -> File {
    let mut options = OpenOptions::new();
    options.create(true).append(true).open(log).expect("a log")
}

/// Debian's library that makes a process's clock another.
fn faketime() -> Option<PathBuf> {
    let arch = std::env::consts::ARCH;
    let path = format!("/usr/lib/{arch}-linux-gnu/faketime/libfaketimeMT.so.1");
    Some(PathBuf::from(path)).filter(|path| path.exists())
}

fn command(program: &Program) -> Command {
    let mut command = Command::new(&program.file);
    let log = open(&program.log);
    command
        .args(&program.words)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("RUST_BACKTRACE", "1")
        .envs(program.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .kill_on_drop(true);
    if let (Some(clock), Some(library)) = (&program.clock, faketime()) {
        command
            .env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", clock)
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
    command
}
