//! Who runs kiln: root, or an ordinary user.

use std::{fmt, fs, process::Command, time::Duration};

use tempfile::TempDir;

use crate::{
    harness::{IMAGE, Invocation, Kiln, copy_images},
    internet::Internet,
};

/// Nobody's number.
const ORDINARY: &str = "43211";

/// A new user's first guest is booted, while others run.
const LIMIT: Duration = Duration::from_mins(5);

/// A user with a kiln.
pub struct User {
    kiln: Kiln,
    /// Another user's number, where root makes one.
    becomes: Option<&'static str>,
    _images: Option<TempDir>,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.becomes {
            None if rustix::process::geteuid().is_root() => "root",
            _ => "an ordinary user",
        })
    }
}

impl User {
    /// Root, where the tests are root's.
    pub fn root() -> Result<Self, &'static str> {
        if !rustix::process::geteuid().is_root() {
            return Err("an ordinary user runs these tests");
        }
        Ok(Self {
            kiln: Kiln::new(),
            becomes: None,
            _images: None,
        })
    }

    /// Whoever runs the tests; somebody with a number of their own where that
    /// is root.
    pub fn ordinary() -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self {
                kiln: Kiln::new(),
                becomes: None,
                _images: None,
            };
        }
        let dir = tempfile::Builder::new().prefix("kiln-it-images-").tempdir();
        let dir = dir.expect("a directory");
        copy_images(dir.path());
        let kiln = Kiln::with_images(dir.path());
        // The build's own directory may be closed to others.
        fs::copy(env!("CARGO_BIN_EXE_kiln"), kiln.home().join("kiln")).expect("the binary");
        Self {
            kiln,
            becomes: Some(ORDINARY),
            _images: Some(dir),
        }
    }

    /// Their kiln.
    pub fn kiln(&self) -> &Kiln {
        &self.kiln
    }

    /// Makes all of their files theirs.
    pub fn give(&self, kiln: &Kiln) {
        if let Some(user) = self.becomes {
            let given = Command::new("chown")
                .args(["-R", user])
                .arg(kiln.home())
                .status();
            assert!(given.expect("chown").success());
        }
    }

    /// `kiln run` by them on the host of this internet. Takes no turn.
    pub fn run(&self, internet: &Internet, name: &str, manifest: &str) -> Invocation<'_> {
        let text = format!("image: {IMAGE}\n{manifest}");
        let path = self.kiln.file(&format!("{name}.yml"), text);
        self.give(&self.kiln);
        let mut through = internet.on_host(&self.kiln.dir());
        let run = self.kiln.kiln(["run"]).arg(path).limit(LIMIT);
        let Some(user) = self.becomes else {
            return run.through(through);
        };
        through.extend(
            [
                "setpriv",
                "--reuid",
                user,
                "--regid",
                user,
                "--clear-groups",
                "--",
            ]
            .map(str::to_owned),
        );
        // Instead of the binary that the harness names.
        let binary = self.kiln.home().join("kiln").display().to_string();
        through.extend(
            [
                "sh",
                "-c",
                "binary=$1; shift 2; exec \"$binary\" \"$@\"",
                "sh",
                &binary,
            ]
            .map(str::to_owned),
        );
        run.through(through)
            .env("XDG_CACHE_HOME", self.kiln.home().join("cache"))
    }
}
