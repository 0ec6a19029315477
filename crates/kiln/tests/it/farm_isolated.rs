//! A farm as a forge has it: a server on PostgreSQL, a worker on a host that can
//! open one connection and no other, or none at all, and real guests.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use kiln_store::testing::Postgres;

use crate::harness::Farm;

/// Where the server listens, in its own network.
const ADDRESS: &str = "10.77.0.1:8080";

/// What a guest asks of its farm, without a client: images need not have one. The
/// answer's body follows an empty line.
const ASKS: &str = r#"tasks:
- asks: |
    set +x
    ask() {
      exec 3<>/dev/tcp/farm.internal/80
      printf 'POST /query HTTP/1.0\r\nHost: farm.internal\r\nContent-Type: application/json\r\n%sContent-Length: %s\r\n\r\n%s' "$2" "${#1}" "$1" >&3
      timeout 20 cat <&3
      echo
    }
    echo "own: $(ask "{\"query\":\"{job(id:$JOB_ID){status}}\"}" | tail -n 1)"
    echo "other: $(ask '{"query":"{job(id:1){status}}"}' | tail -n 1)"
    echo "list: $(ask '{"query":"{jobs{results{id}}}"}' | tail -n 1)"
    echo "submit: $(ask '{"query":"mutation{cancel(jobId:1){id}}"}' | tail -n 1)"
    exec 4<>/dev/tcp/farm.internal/80
    printf 'GET /worker/connect HTTP/1.0\r\nHost: farm.internal\r\n\r\n' >&4
    echo "worker: $(timeout 20 head -n 1 <&4)"
"#;

/// Three networks: the server's; a worker's, which leads to the server's one port;
/// and one that leads nowhere.
pub struct Networks {
    holder: Child,
    pub worker: String,
    pub nowhere: String,
}

impl Networks {
    pub fn new() -> Self {
        let root = rustix::process::geteuid().is_root();
        let user: &[&str] = if root {
            &[]
        } else {
            &["--user", "--map-root-user"]
        };
        let mut holder = Command::new("unshare")
            .args(user)
            .args(["--net", "--kill-child", "bash", "-euc"])
            .arg(include_str!("farm_isolated/networks.sh"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut line = String::new();
        let said = holder.stdout.take().expect("a pipe");
        BufReader::new(said).read_line(&mut line).expect("a line");
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["ready", server, worker, nowhere] = *words.as_slice() else {
            panic!("no networks: {line}");
        };
        let _ = server;
        Self {
            worker: worker.to_owned(),
            nowhere: nowhere.to_owned(),
            holder,
        }
    }

    /// Words that start a program in the network of this process.
    pub fn inside(pid: &str) -> Vec<OsString> {
        let user = if rustix::process::geteuid().is_root() {
            vec![]
        } else {
            vec!["--user", "--preserve-credentials"]
        };
        let words = ["nsenter", "--target", pid, "--net"]
            .into_iter()
            .chain(user);
        words.chain(["--"]).map(OsString::from).collect()
    }

    pub fn server(&self) -> Vec<OsString> {
        Self::inside(&self.holder.id().to_string())
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        // Its standard input is its life.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

fn farm(networks: &Networks, postgres: &Postgres, socket: &Path) -> Farm {
    let words: [OsString; 3] = ["--insecure".into(), "--unix".into(), socket.into()];
    Farm::new()
        .database(postgres.database().expect("a database"))
        .inside(&networks.server(), ADDRESS)
        .words(words)
        .started()
}

/// What the guest of a job heard: its own job, and nothing else.
fn asks(farm: &Farm) {
    let submitted = farm.submit(ASKS).arg("--follow").expect_success();
    let log = submitted.stdout();
    let line = |what: &str| {
        let found = log.lines().find_map(|line| line.strip_prefix(what));
        found.unwrap_or_else(|| panic!("no `{what}` in:\n{log}"))
    };
    assert_eq!(line("own: "), r#"{"data":{"job":{"status":"RUNNING"}}}"#);
    for refused in ["other: ", "list: ", "submit: "] {
        let answer = line(refused);
        let empty = answer == r#"{"data":{"job":null}}"#;
        assert!(empty || answer.contains("\"errors\""), "{refused}{answer}");
    }
    assert!(line("worker: ").contains(" 404 "), "{}", line("worker: "));
}

#[test]
fn a_job_runs_on_a_worker_that_can_open_one_connection_or_none() {
    let postgres = Postgres::start().expect("PostgreSQL");
    let networks = Networks::new();
    let sockets = tempfile::tempdir().expect("a directory");
    let socket = sockets.path().join("kiln.sock");
    let farm = farm(&networks, &postgres, &socket);
    // Somebody else's job, as far as the guests below are concerned.
    farm.submit("tasks:\n- hi: echo hi\n")
        .arg("--pending")
        .expect_success();

    let url = format!("http://{ADDRESS}");
    let one = farm.worker_inside(Networks::inside(&networks.worker), "one", &url);
    asks(&farm);
    drop(one);

    let server = format!("unix:{}", socket.display());
    let _none = farm.worker_inside(Networks::inside(&networks.nowhere), "none", &server);
    asks(&farm);
}
