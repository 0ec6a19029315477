//! What a command said, how it ended, and what it left.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

pub(super) fn say(what: &str, stdout: &[u8], stderr: &[u8]) -> String {
    let (out, err) = (
        String::from_utf8_lossy(stdout),
        String::from_utf8_lossy(stderr),
    );
    format!("{what}\n--- standard output\n{out}\n--- standard error\n{err}\n---")
}

/// How a command ended, and what it left.
#[derive(Debug)]
pub struct Ended {
    pub(super) what: String,
    /// The exit status, or the signal.
    pub status: ExitStatus,
    /// From start to end.
    pub took: Duration,
    pub(super) folder: Option<PathBuf>,
    /// Its files stay as long as this.
    pub(super) _home: Option<Arc<TempDir>>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&say(&self.what, &self.stdout, &self.stderr))?;
        write!(
            f,
            "\n{} after {:.1} s",
            self.status,
            self.took.as_secs_f64()
        )
    }
}

impl Ended {
    /// Standard output, as text.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error, as text.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The folder of its run.
    #[track_caller]
    pub fn folder(&self) -> &Path {
        self.folder
            .as_deref()
            .unwrap_or_else(|| panic!("no run was made by {self}"))
    }

    /// The job's log.
    #[track_caller]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.read("log")).into_owned()
    }

    /// A task's log, as bytes.
    #[track_caller]
    pub fn task_log_bytes(&self, task: &str) -> Vec<u8> {
        self.read(&format!("{task}/log"))
    }

    /// A task's log, as text.
    #[track_caller]
    pub fn task_log(&self, task: &str) -> String {
        String::from_utf8_lossy(&self.task_log_bytes(task)).into_owned()
    }

    /// An artifact.
    #[track_caller]
    pub fn artifact(&self, file: &str) -> Vec<u8> {
        self.read(&format!("artifacts/{file}"))
    }

    /// The events of `--json`.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{error} in `{line}` of {self}"))
        };
        self.stdout().lines().map(parse).collect()
    }

    /// Fails unless a task's log has this line.
    #[track_caller]
    pub fn expect_line(&self, task: &str, line: &str) -> &Self {
        let log = self.task_log(task);
        assert!(
            log.lines().any(|found| found == line),
            "no line `{line}` in {task} of {self}"
        );
        self
    }

    /// Fails unless standard error has this text.
    #[track_caller]
    pub fn expect_stderr(&self, text: &str) -> &Self {
        assert!(
            self.stderr().contains(text),
            "`{text}` is not in standard error of {self}"
        );
        self
    }

    /// Fails unless standard output has this text.
    #[track_caller]
    pub fn expect_stdout(&self, text: &str) -> &Self {
        assert!(
            self.stdout().contains(text),
            "`{text}` is not in standard output of {self}"
        );
        self
    }

    /// Fails unless the job's log has this text.
    #[track_caller]
    pub fn expect_log(&self, text: &str) -> &Self {
        assert!(
            self.log().contains(text),
            "`{text}` is not in the log of {self}"
        );
        self
    }

    #[track_caller]
    fn read(&self, path: &str) -> Vec<u8> {
        let path = self.folder().join(path);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; {self}", path.display()))
    }
}
