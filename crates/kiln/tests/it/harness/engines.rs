//! What a farm of several servers stands on, for real, and the proxy before it.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use kiln_bus::testing::{Redis, Setup};
use kiln_objects::testing::S3;
use kiln_store::testing::Postgres;

use super::Farm;

/// PostgreSQL, Redis and S3 of a test's own.
pub struct Engines {
    pub postgres: Postgres,
    pub redis: Mutex<Redis>,
    pub s3: S3,
    files: tempfile::TempDir,
}

impl Engines {
    pub fn start() -> Self {
        Self {
            postgres: Postgres::start().expect("PostgreSQL"),
            redis: Mutex::new(Redis::start(Setup::default()).expect("Redis")),
            s3: S3::start().expect("S3"),
            files: tempfile::tempdir().expect("a directory"),
        }
    }

    /// A server on them, with a user, that listens at this socket too.
    pub fn farm_at(&self, socket: &Path) -> Farm {
        self.prepared().also_at(socket).started()
    }

    /// A server on them, with a user.
    pub fn farm(&self) -> Farm {
        self.prepared().started()
    }

    /// A server on them that does not run yet.
    pub fn prepared(&self) -> Farm {
        let bucket = self.s3.bucket().expect("a bucket");
        let secret = self.files.path().join("s3-secret");
        fs::write(&secret, bucket.secret_key).expect("a file");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("a mode");
        let objects = format!("s3://{}/{}", bucket.bucket, bucket.prefix);
        let redis = self.redis.lock().expect("Redis");
        let words: [OsString; 10] = [
            "--objects".into(),
            objects.into(),
            "--s3-endpoint".into(),
            bucket.endpoint.expect("a URL").into(),
            "--s3-access-key".into(),
            bucket.access_key.into(),
            "--s3-secret-key-file".into(),
            secret.into(),
            "--bus".into(),
            redis.url().into(),
        ];
        Farm::new()
            .database(self.postgres.database().expect("a database"))
            .words(words)
    }
}

/// HAProxy as on the operator's page, until it is dropped.
pub struct Proxy(Child);

/// Ends it when the standard input does.
const SHELL: &str = r#"
"$@" </dev/null >&2 & proxy=$!
trap 'kill "$proxy"' EXIT
echo started
read -r _
"#;

impl Proxy {
    /// Started by these words, listening there, before servers at these addresses.
    pub fn start(inside: &[OsString], binds: &[&str], servers: &[String], dir: &Path) -> Self {
        let file = dir.join("haproxy.cfg");
        fs::write(&file, configuration(binds, servers)).expect("a file");
        let mut child = Command::new("sh")
            .args(["-c", SHELL, "proxy"])
            .args(inside)
            .args(["haproxy", "-db", "-q", "-f"])
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("sh");
        let mut line = String::new();
        let said = child.stdout.take().expect("a pipe");
        BufReader::new(said).read_line(&mut line).expect("a line");
        Self(child)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The page's, with other addresses.
fn configuration(binds: &[&str], servers: &[String]) -> String {
    let page = include_str!("../../../../../docs/operator.md");
    let block = page.split("```haproxy\n").nth(1).expect("a block");
    let block = block.split("```").next().expect("its end");
    let mut lines: Vec<String> = Vec::new();
    for line in block.lines() {
        match line.split_whitespace().next() {
            Some("bind") => lines.extend(binds.iter().map(|at| format!("\tbind {at}"))),
            // A section's two, once.
            Some("server") if line.contains(" one ") => {
                let servers = servers.iter().enumerate();
                lines.extend(servers.map(|(number, at)| format!("\tserver s{number} {at}")));
            }
            Some("server") => {}
            _ => lines.push(line.to_owned()),
        }
    }
    lines.join("\n") + "\n"
}

/// Where a server listens besides, for the proxy: one file for each.
pub fn socket(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.sock"))
}
