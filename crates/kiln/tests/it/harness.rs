//! The language of the end-to-end tests: a kiln of its own, what it is asked,
//! how that ended.
//!
//! ```ignore
//! let ended = Kiln::new().run("tasks:\n- hello: echo hi\n").expect_success();
//! assert!(ended.task_log("hello").contains("hi"));
//! ```
//!
//! Each [`Kiln`] has a home directory, and so runs, of its own. What is known of
//! this host's accelerator is shared, so that it is found out once. Guests have
//! two of the host's processors each, so [`Turn`] lets two of them run at once.
//! Whatever runs too long is killed and fails its test with all that it said.

mod ended;
mod engines;
mod farm;
mod running;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;

pub use ended::Ended;
pub use engines::{Engines, Proxy, socket};
pub use farm::Farm;
pub use running::{Running, Turn};

/// The image that the tests' manifests run on.
pub const IMAGE: &str = "debian/bookworm";

/// How long a command may take that a test says nothing else of: a guest that
/// boots while another one works needs half a minute.
const LIMIT: Duration = Duration::from_secs(180);

/// The images that `make test` made.
pub fn images() -> PathBuf {
    let dir = std::env::var_os("KILN_TEST_IMAGES").map(PathBuf::from);
    let dir = dir.expect(
        "KILN_TEST_IMAGES is not set: these tests boot real guests. Run them with `make test`, which \
         makes an image first, or set it to a directory with an image debian/bookworm",
    );
    assert!(
        dir.join(IMAGE).join("functions").is_file(),
        "KILN_TEST_IMAGES={} has no image {IMAGE}: `make test` makes one",
        dir.display()
    );
    dir
}

/// Copies them to where every user can read them.
pub fn copy_images(to: &Path) {
    let copied = Command::new("cp")
        .args(["-rL", "--reflink=auto"])
        .arg(images().join("debian"))
        .arg(to)
        .status();
    assert!(copied.expect("cp").success());
    let open = Command::new("chmod").args(["-R", "a+rX"]).arg(to).status();
    assert!(open.expect("chmod").success());
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).expect("a mode");
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A user with nothing but kiln.
pub struct Kiln {
    home: Arc<TempDir>,
    images: Option<PathBuf>,
    dummy: bool,
}

impl Kiln {
    /// With the tests' images: `run` starts real guests.
    pub fn new() -> Self {
        Self::with_images(&images())
    }

    /// With these images.
    pub fn with_images(images: &Path) -> Self {
        let mut kiln = Self::without_images();
        kiln.images = Some(images.to_owned());
        kiln
    }

    /// Whose `run` is on the dummy machine: no image, no guest, no waiting.
    pub fn dummy() -> Self {
        let mut kiln = Self::without_images();
        kiln.dummy = true;
        kiln
    }

    /// For commands that need no image.
    pub fn without_images() -> Self {
        let home = tempfile::Builder::new()
            .prefix("kiln-it-")
            .tempdir()
            .expect("a home directory");
        fs::create_dir(home.path().join("work")).expect("a working directory");
        Self {
            home: Arc::new(home),
            images: None,
            dummy: false,
        }
    }

    /// The home directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The directory that commands are run in.
    pub fn dir(&self) -> PathBuf {
        self.home().join("work")
    }

    /// Where its runs are kept.
    pub fn runs(&self) -> PathBuf {
        self.home().join("state/kiln/runs")
    }

    /// Writes a file, and the directories it needs, below [`Self::dir`].
    pub fn file(&self, path: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir().join(path);
        fs::create_dir_all(path.parent().expect("below the directory")).expect("a directory");
        fs::write(&path, bytes).expect("a file");
        path
    }

    /// `kiln run` of a manifest. One without `image:` runs on [`IMAGE`].
    pub fn run(&self, manifest: &str) -> Invocation<'_> {
        let image = if manifest.lines().any(|line| line.starts_with("image:")) {
            String::new()
        } else {
            format!("image: {IMAGE}\n")
        };
        self.file(".build.yml", image + manifest);
        let dummy = if self.dummy { &["--dummy"][..] } else { &[] };
        self.kiln(["run"]).args(dummy).takes_turns(!self.dummy)
    }

    /// Any command of kiln's, by its words.
    pub fn kiln<S: Into<OsString>>(&self, words: impl IntoIterator<Item = S>) -> Invocation<'_> {
        Invocation {
            kiln: self,
            through: Vec::new(),
            words: words.into_iter().map(Into::into).collect(),
            variables: BTreeMap::new(),
            stdin: Vec::new(),
            limit: LIMIT,
            turn: false,
        }
    }
}

/// A command before it starts.
#[must_use = "nothing runs before it is started"]
pub struct Invocation<'k> {
    kiln: &'k Kiln,
    through: Vec<OsString>,
    words: Vec<OsString>,
    variables: BTreeMap<OsString, OsString>,
    stdin: Vec<u8>,
    limit: Duration,
    turn: bool,
}

impl Invocation<'_> {
    /// More words.
    pub fn args<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.words
            .extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// One more word.
    pub fn arg(self, word: impl AsRef<OsStr>) -> Self {
        self.args([word])
    }

    /// A variable of its environment, which has only what kiln needs.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.variables
            .insert(name.into(), value.as_ref().to_owned());
        self
    }

    /// By another program: `runuser -u nobody --`.
    pub fn through<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.through = words
            .into_iter()
            .map(|word| word.as_ref().to_owned())
            .collect();
        self
    }

    /// Its standard input; empty when nothing is said.
    pub fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.stdin = bytes.as_ref().to_owned();
        self
    }

    /// How long it may take before it is killed and the test fails.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Whether it starts a guest and has to wait for its turn.
    pub fn takes_turns(mut self, turn: bool) -> Self {
        self.turn = turn;
        self
    }

    /// Starts it, when its turn has come.
    pub fn start(self) -> Running {
        let turn = self.turn.then(Turn::take);
        let mut words = self.through.iter().cloned();
        let binary = OsString::from(env!("CARGO_BIN_EXE_kiln"));
        let mut command = match words.next() {
            Some(program) => {
                let mut command = Command::new(program);
                command.args(words).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        let home = self.kiln.home();
        command
            .args(&self.words)
            .current_dir(self.kiln.dir())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LANG", "C.UTF-8")
            .env("HOME", home)
            .env("XDG_STATE_HOME", home.join("state"))
            .env("XDG_DATA_HOME", home.join("data"))
            .env(
                "XDG_CACHE_HOME",
                Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"),
            )
            .env("XDG_RUNTIME_DIR", home.join("runtime"))
            .envs(&self.variables)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(images) = &self.kiln.images {
            command.env("KILN_IMAGES", images);
        }
        let what = format!("kiln {}", self.words.join(OsStr::new(" ")).display());
        Running::start(&mut command, what, self.stdin, self.limit, turn)
            .of(Arc::clone(&self.kiln.home), self.kiln.runs())
    }

    /// Runs it to its end, whatever that is.
    pub fn end(self) -> Ended {
        self.start().end()
    }

    /// Runs it; the test fails unless it ends with 0.
    #[track_caller]
    pub fn expect_success(self) -> Ended {
        self.expect_status(0)
    }

    /// Runs it; the test fails unless it ends with this status.
    #[track_caller]
    pub fn expect_status(self, status: i32) -> Ended {
        self.start().expect_status(status)
    }
}
