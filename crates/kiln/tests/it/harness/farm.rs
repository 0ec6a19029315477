//! A farm of a test's own: a server on loopback, workers, a user with a token.
//!
//! ```ignore
//! let farm = Farm::start();
//! let worker = farm.worker("one");
//! farm.submit("tasks:\n- hello: echo hi\n").expect_success();
//! ```

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use super::{IMAGE, Invocation, Kiln, Running};

/// Long for a lease that runs out after a server's start, and a guest beside it.
const PATIENCE: Duration = Duration::from_secs(240);

/// Long for a server's end: for a proxy it serves on for 5 s, and for 10 s it lets requests end.
const ENDS: Duration = Duration::from_secs(30);

/// A server, and a user of it.
pub struct Farm {
    kiln: Kiln,
    server: Option<Running>,
    /// Words of `kiln serve` besides address and data.
    words: Vec<OsString>,
    /// Where else it listens, and what goes with that.
    unix: Vec<OsString>,
    /// The database, if it is not the data directory's.
    database: Option<String>,
    /// What it listens on; with its port from the first start on.
    listen: String,
    /// How to start programs where the server is: `nsenter …`.
    inside: Vec<OsString>,
}

impl Farm {
    /// A server without a worker, on SQLite.
    pub fn start() -> Self {
        Self::new().started()
    }

    /// One that does not run yet.
    pub fn new() -> Self {
        Self {
            kiln: Kiln::new(),
            server: None,
            words: vec!["--no-worker".into()],
            unix: Vec::new(),
            database: None,
            listen: "127.0.0.1:0".to_owned(),
            inside: Vec::new(),
        }
    }

    /// On this database.
    pub fn database(mut self, url: String) -> Self {
        self.database = Some(url);
        self
    }

    /// Started by these words, listening there.
    pub fn inside(mut self, words: &[OsString], listen: &str) -> Self {
        self.inside = words.to_vec();
        listen.clone_into(&mut self.listen);
        self
    }

    /// With more words of `kiln serve`.
    pub fn words<S: Into<OsString>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.words.extend(words.into_iter().map(Into::into));
        self
    }

    /// Starts it and makes the user `ada`.
    pub fn started(mut self) -> Self {
        self.go_on();
        let add = [
            "user",
            "add",
            "ada",
            "--email",
            "ada@example.org",
            "--admin",
        ];
        self.admin(add).expect_success();
        let grants = "JOBS:RW LOGS:RO SECRETS:RW PROFILE:RO";
        let token = self.last_line(["token", "ada", "--grants", grants]);
        self.secret("token", &token);
        self
    }

    /// Starts the server on what is there, where it was.
    pub fn go_on(&mut self) {
        let running = self.serve();
        running.wait_for_stderr("serving http://");
        let said = running.stderr_so_far();
        let address = said.split("serving http://").nth(1).expect("an address");
        let address = address.split_whitespace().next().expect("an address");
        address.clone_into(&mut self.listen);
        self.server = Some(running);
    }

    /// Starts the server and does not wait for it.
    pub fn serve(&self) -> Running {
        let mut words: Vec<OsString> = vec!["serve".into(), "--listen".into()];
        words.push(self.listen.clone().into());
        words.extend(self.data());
        words.extend(self.words.iter().chain(&self.unix).cloned());
        self.kiln
            .kiln(words)
            .through(&self.inside)
            .limit(Duration::from_mins(20))
            .start()
    }

    /// Listening at this socket too, as long as a proxy takes to see that it ends.
    pub fn also_at(mut self, socket: &Path) -> Self {
        self.unix = [
            "--drain".into(),
            "5s".into(),
            "--unix".into(),
            socket.into(),
        ]
        .into();
        self
    }

    /// Another server of the same farm, which runs and listens at this socket too.
    pub fn beside_at(&self, socket: &Path) -> Self {
        let mut other = Self::new().also_at(socket);
        other.words.clone_from(&self.words);
        other.database.clone_from(&self.database);
        other.go_on();
        let token = fs::read_to_string(self.dir().join("token")).expect("a token");
        other.secret("token", &token);
        other
    }

    /// Ends the server as a power cut would.
    pub fn kill(&mut self) {
        let server = self.server.take().expect("a server that runs");
        server.signal(Signal::KILL);
        server.end();
    }

    /// Waits for the end of a server that was asked to end, which comes in bounded time.
    pub fn stopped(&mut self) {
        let server = self.server.take().expect("a server that runs");
        server.within(ENDS).expect_status(0);
    }

    /// The server's process.
    pub fn server(&self) -> &Running {
        self.server.as_ref().expect("a server that runs")
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// The directory for files of this farm.
    pub fn dir(&self) -> PathBuf {
        self.kiln.dir()
    }

    /// The user's kiln.
    pub fn kiln(&self) -> &Kiln {
        &self.kiln
    }

    /// The server's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.kiln.home().join("serve")
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.listen
    }

    fn data(&self) -> Vec<OsString> {
        let data = self.data_dir().into_os_string();
        let mut words = vec!["--data".into(), data];
        if let Some(url) = &self.database {
            words.extend(["--database".into(), url.into()]);
        }
        words
    }

    /// `kiln admin`.
    pub fn admin<S: Into<OsString>>(&self, words: impl IntoIterator<Item = S>) -> Invocation<'_> {
        let mut all: Vec<OsString> = vec!["admin".into()];
        all.extend(self.data());
        all.extend(words.into_iter().map(Into::into));
        self.kiln.kiln(all)
    }

    /// What `kiln admin` prints last.
    pub fn last_line<S: Into<OsString>>(&self, words: impl IntoIterator<Item = S>) -> String {
        let said = self.admin(words).expect_success().stdout();
        said.lines().last().expect("a line").to_owned()
    }

    /// Writes a file that only its owner may read.
    pub fn secret(&self, name: &str, text: &str) -> PathBuf {
        let file = self.kiln.file(name, text);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode");
        file
    }

    /// A command of the user's.
    pub fn client<S: Into<OsString>>(&self, words: impl IntoIterator<Item = S>) -> Invocation<'_> {
        self.kiln
            .kiln(words)
            .env("KILN_SERVER", self.url())
            .env("KILN_TOKEN_FILE", self.dir().join("token"))
            .args(self.inside.first().map(|_| "--insecure"))
            .through(&self.inside)
            .limit(PATIENCE)
    }

    /// `kiln submit` of a manifest. One without `image:` runs on [`IMAGE`].
    pub fn submit(&self, manifest: &str) -> Invocation<'_> {
        let image = if manifest.lines().any(|line| line.starts_with("image:")) {
            String::new()
        } else {
            format!("image: {IMAGE}\n")
        };
        let name = format!(
            "{}.yml",
            self.dir().read_dir().expect("a directory").count()
        );
        let file = self.kiln.file(&name, image + manifest);
        self.client(["submit".into(), file.into_os_string()])
    }

    /// Submits and gives the job's number.
    pub fn job(&self, manifest: &str) -> String {
        let said = self.submit(manifest).expect_success().stdout();
        let url = said.lines().last().expect("a URL").to_owned();
        url.rsplit('/').next().expect("a number").to_owned()
    }

    /// What `kiln show --json` says of a job.
    pub fn show(&self, job: &str) -> Value {
        let said = self.client(["show", "--json", job]).expect_success();
        serde_json::from_str(&said.stdout()).expect("JSON")
    }

    /// Waits until a job is as it is to be; fails with how it is.
    #[track_caller]
    pub fn wait_for(&self, job: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let shown = self.show(job);
            if is(&shown) {
                return shown;
            }
            assert!(Instant::now() < until, "job {job} is not {what}: {shown:#}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until a job has ended.
    #[track_caller]
    pub fn wait_for_end(&self, job: &str) -> Value {
        const ENDS: [&str; 4] = ["SUCCESS", "FAILED", "TIMEOUT", "CANCELLED"];
        self.wait_for(job, "over", |shown| {
            ENDS.iter().any(|end| shown["status"] == *end)
        })
    }

    /// Waits until all logs of a job together have this text.
    #[track_caller]
    pub fn wait_for_log(&self, job: &str, text: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            // Before the job is there, or runs, there is none.
            let log = self.client(["logs", job]).end().stdout();
            if log.contains(text) {
                return;
            }
            assert!(Instant::now() < until, "`{text}` is not in:\n{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// All logs of a job.
    pub fn log(&self, job: &str) -> String {
        self.client(["logs", job]).expect_success().stdout()
    }

    /// Registers a worker and gives the file with its token.
    pub fn worker_token(&self, name: &str) -> PathBuf {
        let token = self.last_line(["worker", "add", name]);
        self.secret(&format!("worker-{name}"), &token)
    }

    /// A worker's command: its data is its own.
    pub fn worker_command(&self, name: &str, server: &str, token: &Path) -> Invocation<'_> {
        self.kiln
            .kiln(["worker", "--server", server, "--slots", "1"])
            // What other tests installed must not make these ones quick.
            .args(["--derived-ttl", "0", "--token-file"])
            .arg(token)
            .arg("--data")
            .arg(self.kiln.home().join(name))
            .limit(Duration::from_mins(20))
    }

    /// Starts a worker and waits until the server knows it.
    pub fn worker(&self, name: &str) -> Running {
        let token = self.worker_token(name);
        let worker = self.worker_command(name, &self.url(), &token);
        let worker = worker.takes_turns(true).start();
        worker.wait_for_stderr("knows this worker as");
        worker
    }

    /// The same in another network: `inside` are the words that start a program there.
    pub fn worker_inside(&self, inside: Vec<OsString>, name: &str, server: &str) -> Running {
        let token = self.worker_token(name);
        let worker = self
            .worker_command(name, server, &token)
            .arg("--insecure")
            .through(inside)
            .takes_turns(true)
            .start();
        worker.wait_for_stderr("knows this worker as");
        worker
    }

    /// The same on the dummy machine: no guest, no waiting.
    pub fn dummy_worker(&self, name: &str) -> Running {
        let token = self.worker_token(name);
        let worker = self.worker_command(name, &self.url(), &token);
        let worker = worker.arg("--dummy").start();
        worker.wait_for_stderr("knows this worker as");
        worker
    }
}
