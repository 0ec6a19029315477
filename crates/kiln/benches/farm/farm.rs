//! A farm of a benchmark's own: processes of the binary, and its public API.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use http::{Method, Request, header};
use kiln_core::farm::JobId;
use kiln_wire::client::{self, Client, Options, Target};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// The image of the dummy machine.
pub const IMAGE: &str = "debian/bookworm";
/// The longest answer of the API that is read.
const ANSWER: usize = 64 << 20;
/// Clock ticks in a second, as Linux has them in /proc on all its architectures.
const TICKS: u32 = 100;
/// How long a process may take to say that it is there.
const START: Duration = Duration::from_secs(60);

/// A server or several, and a user of them. Its processes and files go with it.
pub struct Farm {
    servers: Vec<Server>,
    token: String,
    /// What all its servers are told.
    words: Vec<OsString>,
    /// Where `kiln admin` finds its database.
    database: Vec<OsString>,
    store_url: String,
    /// Last of all, so that processes are gone before.
    dir: TempDir,
}

struct Server {
    process: Process,
    url: String,
}

/// A process that is killed when this is dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Farm {
    /// Starts `kiln serve` without a worker on SQLite, or this database, with these further
    /// words.
    pub async fn start(database: Option<&str>, words: &[String]) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("farm-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let own = dir.path().join("server0/kiln.db");
        let store_url =
            database.map_or_else(|| format!("sqlite://{}", own.display()), str::to_owned);
        let database = database.map(|url| ["--database".into(), url.into()]);
        let database: Vec<OsString> = database.into_iter().flatten().collect();
        let words = words.iter().map(Into::into);
        let mut farm = Self {
            servers: Vec::new(),
            token: String::new(),
            words: database.iter().cloned().chain(words).collect(),
            database,
            store_url,
            dir,
        };
        farm.add_server().await?;
        let data = ["--data".into(), farm.dir.path().join("server0").into()];
        farm.database.extend(data);
        farm.token = farm.user("ada").await?;
        Ok(farm)
    }

    /// Starts one more server beside those that are there.
    pub async fn add_server(&mut self) -> Result<()> {
        let name = format!("server{}", self.servers.len());
        let mut words: Vec<OsString> = ["serve", "--listen", "127.0.0.1:0", "--no-worker"]
            .map(Into::into)
            .to_vec();
        words.extend(["--data".into(), self.dir.path().join(&name).into()]);
        words.extend(self.words.iter().cloned());
        let process = Process::start(self.dir.path(), &name, words)?;
        let said = process.says("serving http://").await?;
        let address = said.split_whitespace().next().context("an address")?;
        let url = format!("http://{address}");
        self.servers.push(Server { process, url });
        Ok(())
    }

    /// Where its first server is.
    pub fn url(&self) -> &str {
        &self.servers[0].url
    }

    /// Its database.
    pub fn store_url(&self) -> &str {
        &self.store_url
    }

    /// Its first server.
    pub fn server(&self) -> &Process {
        &self.servers[0].process
    }

    /// Makes a user and gives a token of its.
    pub async fn user(&self, name: &str) -> Result<String> {
        let email = format!("{name}@example.org");
        self.admin(&["user", "add", name, "--email", &email, "--admin"])
            .await?;
        let grants = "JOBS:RW LOGS:RO PROFILE:RO";
        self.admin(&["token", name, "--grants", grants]).await
    }

    /// What `kiln admin` prints last.
    pub async fn admin(&self, words: &[&str]) -> Result<String> {
        let mut command = kiln(self.dir.path());
        command.arg("admin").args(&self.database).args(words);
        let output = command.output().await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kiln admin {words:?}: {errors}");
        let said = String::from_utf8(output.stdout)?;
        Ok(said.lines().last().unwrap_or_default().to_owned())
    }

    /// Starts a worker on the dummy machine with so many slots, and waits until the first
    /// server knows it.
    pub async fn worker(&self, name: &str, slots: u32) -> Result<Process> {
        self.worker_on("--dummy", name, slots).await
    }

    /// The same with guests that do nothing, without any process.
    pub async fn null_worker(&self, name: &str, slots: u32) -> Result<Process> {
        self.worker_on("--dummy-null", name, slots).await
    }

    async fn worker_on(&self, machine: &str, name: &str, slots: u32) -> Result<Process> {
        use std::os::unix::fs::PermissionsExt as _;
        let token = self.admin(&["worker", "add", name]).await?;
        let file = self.dir.path().join(format!("{name}.token"));
        std::fs::write(&file, token)?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
        let slots = slots.to_string();
        let mut words: Vec<OsString> =
            ["worker", machine, "--server", self.url(), "--slots", &slots]
                .map(Into::into)
                .to_vec();
        words.extend(["--token-file".into(), file.into()]);
        words.extend(["--data".into(), self.dir.path().join(name).into()]);
        let worker = Process::start(self.dir.path(), name, words)?;
        worker.says("knows this worker as").await?;
        Ok(worker)
    }

    /// A client of the user's at the first server, with connections of its own.
    pub fn client(&self) -> Result<Client> {
        self.client_at(0)
    }

    /// The same at another server.
    pub fn client_at(&self, server: usize) -> Result<Client> {
        client(&self.servers[server].url, &self.token)
    }

    /// Submits a manifest.
    pub async fn submit(&self, client: &Client, manifest: &str) -> Result<JobId> {
        submit(client, manifest).await
    }

    /// A job's status: `SUCCESS`.
    pub async fn status(&self, client: &Client, job: JobId) -> Result<String> {
        let query = "query($id: Int!) { job(id: $id) { status } }";
        let data = query_api(client, query, json!({ "id": job.0 })).await?;
        let status = data["job"]["status"].as_str().context("a status")?;
        Ok(status.to_owned())
    }

    /// Waits until a job has succeeded.
    pub async fn succeeds(&self, client: &Client, job: JobId, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        loop {
            match self.status(client, job).await?.as_str() {
                "SUCCESS" => return Ok(()),
                "PENDING" | "QUEUED" | "RUNNING" => {}
                status => bail!("job {job} ended as {status}"),
            }
            ensure!(Instant::now() < until, "job {job} takes too long");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Process {
    fn start(dir: &Path, name: &str, words: Vec<OsString>) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let child = kiln(dir)
            .args(words)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .spawn()?;
        Ok(Self { child, log })
    }

    /// Waits until it says this on standard error; gives the rest of the line.
    async fn says(&self, what: &str) -> Result<String> {
        let until = Instant::now() + START;
        loop {
            let text = std::fs::read_to_string(&self.log)?;
            let rest = text
                .split_once(what)
                .and_then(|(_, rest)| rest.split_once('\n'));
            if let Some((rest, _)) = rest {
                return Ok(rest.to_owned());
            }
            ensure!(Instant::now() < until, "no `{what}` in: {text}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it as an operator does, and waits.
    pub async fn end(mut self) -> Result<()> {
        terminate(&self.child)?;
        self.child.wait().await?;
        Ok(())
    }

    pub fn pid(&self) -> Result<u32> {
        self.child.id().context("the process has ended")
    }

    /// Processor time so far, user's and system's.
    pub fn processor(&self) -> Result<Duration> {
        processor(self.pid()?, Whose::Own)
    }
}

/// Asks a process to end.
pub fn terminate(child: &Child) -> Result<()> {
    let pid = child.id().context("the process has ended")?;
    let pid = rustix::process::Pid::from_raw(pid.try_into()?).context("a process's number")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    Ok(())
}

/// Whose processor time is counted.
#[derive(Clone, Copy)]
enum Whose {
    Own,
    /// Its own, and that of those of its children that have ended.
    EndedChildrens,
}

/// A process's processor time so far, user's and system's.
fn processor(pid: u32, whose: Whose) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may have anything in it.
    let (_, rest) = stat.rsplit_once(") ").context("a process's state")?;
    let fields = match whose {
        Whose::Own => 2,
        Whose::EndedChildrens => 4,
    };
    let fields = rest.split(' ').skip(11).take(fields);
    let ticks: Result<u64, _> = fields.map(str::parse::<u64>).sum();
    Ok(Duration::from_secs(ticks?) / TICKS)
}

/// The processor time of all of PostgreSQL's processes.
pub fn of_postgres(dir: &Path) -> Result<Duration> {
    let file = std::fs::read_to_string(dir.join("data/postmaster.pid"))?;
    let server = file.lines().next().context("a process's number")?.parse()?;
    let children = std::fs::read_to_string(format!("/proc/{server}/task/{server}/children"))?;
    let mut all = processor(server, Whose::EndedChildrens)?;
    for child in children.split_whitespace() {
        // One that ended meanwhile is its parent's.
        all += processor(child.parse()?, Whose::Own).unwrap_or_default();
    }
    Ok(all)
}

/// A client of a server.
pub fn client(url: &str, token: &str) -> Result<Client> {
    let options = Options {
        token: Some(token.to_owned()),
        ..Options::default()
    };
    Ok(Client::new(&Target::Url(url.to_owned()), &options)?)
}

/// Submits a manifest.
pub async fn submit(client: &Client, manifest: &str) -> Result<JobId> {
    let query = "mutation($manifest: String!) { submit(manifest: $manifest) { id } }";
    let data = query_api(client, query, json!({ "manifest": manifest })).await?;
    let id = data["submit"]["id"].as_i64().context("a job's number")?;
    Ok(JobId(i32::try_from(id)?))
}

/// What the API answers to a query.
pub async fn query_api(client: &Client, query: &str, variables: Value) -> Result<Value> {
    let body = serde_json::to_vec(&json!({ "query": query, "variables": variables }))?;
    let request = Request::builder()
        .method(Method::POST)
        .uri("/query")
        .header(header::CONTENT_TYPE, "application/json")
        .body(client::full(body))?;
    let answer = client.send(request).await?;
    let bytes = client::read(answer.into_body(), ANSWER).await?;
    let mut value: Value = serde_json::from_slice(&bytes)?;
    if value["data"].is_null() || !value["errors"].is_null() {
        bail!("the API answers {value}");
    }
    Ok(value["data"].take())
}

/// A manifest with one task, whose script is this.
pub fn manifest(script: &str) -> String {
    format!("image: {IMAGE}\ntasks:\n- it: |\n    {script}\n")
}

/// The binary, which sees nothing of the user's.
fn kiln(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}
