//! What guests talk to: servers on this host's loopback, ended when dropped.
//! A guest that was allowed their port finds them at 10.0.2.2.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use tempfile::TempDir;

use crate::harness::{Invocation, Kiln, Turn, root};

/// A program that listens.
pub struct Server {
    child: Child,
    port: u16,
    said: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Git repositories and files of a directory, over HTTP.
    pub fn http(dir: &Path) -> Self {
        let script = root().join("crates/kiln/tests/it/servers/serve.py");
        Self::start(Command::new("python3").arg(script).arg(dir))
    }

    /// A Mercurial repository.
    pub fn hg(repository: &Path) -> Self {
        let mut command = Command::new("hg");
        command
            .env("HGPLAIN", "1")
            .args(["serve", "--address", "127.0.0.1", "--port", "0"]);
        Self::start(
            command
                .arg("--print-url")
                .arg("--repository")
                .arg(repository),
        )
    }

    /// Its first line has its port, as all of it or in a URL.
    fn start(command: &mut Command) -> Self {
        // If this process is killed, nobody is left to end it.
        let mut guarded = Command::new("setpriv");
        guarded
            .args(["--pdeathsig", "KILL", "--"])
            .arg(command.get_program());
        guarded.args(command.get_args());
        for (name, value) in command.get_envs() {
            guarded.env(name, value.unwrap_or_default());
        }
        let mut child = guarded
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let first = lines.next().expect("it says its port").expect("text");
        let port = first
            .trim_end_matches('/')
            .rsplit(':')
            .next()
            .unwrap_or_default();
        let port = port
            .parse()
            .unwrap_or_else(|_| panic!("`{first}` has no port"));
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                heard
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
            }
        });
        Self { child, port, said }
    }

    /// Where it is in a guest that was allowed to reach it.
    pub fn in_guest(&self) -> String {
        format!("10.0.2.2:{}", self.port)
    }

    /// The option that opens it to a guest.
    pub fn allow(&self) -> [String; 2] {
        ["--allow".into(), format!("localhost:{}", self.port)]
    }

    /// What it was asked for.
    pub fn requests(&self) -> Vec<String> {
        self.said
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a script of the test's own in a directory, away from the configuration
/// of who runs the tests. Gives its output without the last newline.
#[track_caller]
pub fn sh(dir: &Path, script: &str) -> String {
    let output = Command::new("bash")
        .args(["-euc", script])
        .current_dir(dir)
        .env("HOME", dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_NAME", "Test")
        .env("GIT_AUTHOR_EMAIL", "test@example.org")
        .env("GIT_COMMITTER_NAME", "Test")
        .env("GIT_COMMITTER_EMAIL", "test@example.org")
        .env("HGUSER", "Test <test@example.org>")
        .env("HGPLAIN", "1")
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{said}");
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

/// An OpenPGP key pair in a home of its own.
pub struct Keyring {
    home: TempDir,
}

impl Keyring {
    /// Makes the key of `name@example.org`.
    pub fn new(name: &str) -> Self {
        let home = tempfile::Builder::new()
            .prefix("gpg-")
            .tempdir()
            .expect("a directory");
        let keyring = Self { home };
        let make = format!("--quick-gen-key '{name} <{name}@example.org>' ed25519 sign never");
        keyring.gpg(
            Path::new("/"),
            &format!("gpg --batch --quiet --passphrase '' {make}"),
        );
        keyring
    }

    /// Runs a script that calls gpg.
    pub fn gpg(&self, dir: &Path, script: &str) -> String {
        let home = self.home.path().display();
        sh(dir, &format!("export GNUPGHOME={home}\n{script}"))
    }

    /// The secret key, armoured.
    pub fn secret(&self) -> String {
        self.gpg(Path::new("/"), "gpg --batch --armor --export-secret-keys")
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        // gpg leaves its agent running.
        self.gpg(Path::new("/"), "gpgconf --kill all");
    }
}

/// A package repository with a key of its own, in a directory to be served.
/// Has one package, `kiln-greeting`, a program that greets.
pub fn apt_repository(dir: &Path) -> PathBuf {
    let keyring = Keyring::new("archive");
    keyring.gpg(
        dir,
        r"
        mkdir -p package/DEBIAN package/usr/bin apt/pool apt/dists/stable/main/binary-amd64
        printf '%s\n' 'Package: kiln-greeting' 'Version: 1.0' 'Architecture: all' \
            'Maintainer: Test <test@example.org>' 'Description: greets' >package/DEBIAN/control
        printf '#!/bin/sh\necho greetings from our own repository\n' >package/usr/bin/kiln-greeting
        chmod -R u=rwX,go=rX package
        chmod 755 package/usr/bin/kiln-greeting
        dpkg-deb --root-owner-group --build package apt/pool/kiln-greeting_1.0_all.deb
        cd apt
        mkdir dists/stable/main/source
        : >dists/stable/main/source/Sources
        dpkg-scanpackages pool >dists/stable/main/binary-amd64/Packages
        apt-ftparchive -o APT::FTPArchive::Release::Suite=stable \
            -o APT::FTPArchive::Release::Components=main \
            -o APT::FTPArchive::Release::Architectures=amd64 release dists/stable >Release
        gpg --batch --clearsign --output dists/stable/InRelease Release
        gpg --batch --armor --export >key.asc
        ",
    );
    dir.join("apt")
}

/// A guest that `kiln image control` booted, ended when dropped. It takes the
/// turn of one guest.
pub struct Booted<'k> {
    kiln: &'k Kiln,
    image: &'static str,
    port: u16,
    _turn: Turn,
}

impl<'k> Booted<'k> {
    /// On a port that was free a moment ago.
    pub fn new(kiln: &'k Kiln, image: &'static str) -> Self {
        let turn = Turn::take();
        let free = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let guest = Self {
            kiln,
            image,
            port,
            _turn: turn,
        };
        guest.control("boot amd64").expect_success();
        guest
    }

    /// The port of its SSH server on this host's loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs a command in it by OpenSSH's own client.
    #[track_caller]
    pub fn ssh(&self, command: &str) -> String {
        let output = Command::new("ssh")
            .args([
                "-F",
                "none",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "LogLevel=ERROR",
            ])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"])
            .args(["-p", &self.port.to_string(), "build@localhost", command])
            .stdin(Stdio::null())
            .output()
            .expect("ssh");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}\n{said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn control(&self, words: &str) -> Invocation<'k> {
        let control = self.kiln.kiln(["image", "control", self.image]);
        control.args(words.split(' ')).arg(self.port.to_string())
    }
}

impl Drop for Booted<'_> {
    fn drop(&mut self) {
        // The test may have ended it.
        self.control("cleanup").end();
    }
}
