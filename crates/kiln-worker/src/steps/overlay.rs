//! A working copy of the host in place of a source's clone.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path},
};

use kiln_core::manifest::Source;
use kiln_vm::machine::{Exec, ExitCode, Guest, Sink, Stdin};
use tokio::fs::File;

use crate::{
    Overlay, Step,
    outcome::Failure,
    script::{bash, in_home},
};

/// Reads the bundle. Arguments: home, git, directory, url.
const CLONE: &str = r#"
cd -- "$1" || exit
[ ! -e "$3" ] && [ ! -L "$3" ] || exit 201
bundle=$(mktemp) || exit
trap 'rm -f -- "$bundle"' EXIT
cat >"$bundle" || exit
"$2" clone -q -- "$bundle" "$3" || exit
"$2" -C "$3" remote set-url origin "$4"
"#;

/// Reads the deleted paths, each ended by NUL. Argument: directory.
const DELETE: &str = r#"cd -- "$1" && xargs -0 rm -rf --"#;

/// Reads a tar. Argument: directory.
const UNPACK: &str = r#"tar -x -f - -C "$1""#;

/// Arguments: directory, git.
const SUBMODULES: &str = r#"
cd -- "$1" || exit
"$2" submodule update --init --recursive || exit 203
"$2" rev-parse HEAD
"#;

/// Brings the working copy; the last line of the output is its commit.
pub(super) async fn bring(
    overlay: &Overlay,
    source: &Source,
    guest: &dyn Guest,
    log: &mut dyn Sink,
) -> Result<ExitCode, Failure> {
    let login = guest.login();
    let directory = in_home(&login.home, source.directory());
    let clone = bash(
        CLONE,
        &[&login.home, &login.git, &directory, source.clone_url()],
    );
    let mut code = send_file(&overlay.bundle, &clone, guest, log).await?;
    if code.success() && !overlay.deleted.is_empty() {
        let paths = deleted(overlay)?;
        let command = bash(DELETE, &[&directory]);
        code = exec(Exec::with_stdin(&command, &paths), guest, log).await?;
    }
    if let (true, Some(changes)) = (code.success(), &overlay.changes) {
        code = send_file(changes, &bash(UNPACK, &[&directory]), guest, log).await?;
    }
    if code.success() {
        let command = bash(SUBMODULES, &[&directory, &login.git]);
        code = exec(Exec::new(&command), guest, log).await?;
    }
    Ok(code)
}

/// The deleted paths as `xargs -0` reads them.
fn deleted(overlay: &Overlay) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    for path in &overlay.deleted {
        if !stays_inside(path) {
            let reason = "a deleted path of the working copy leads out of it";
            return Err(Failure::step(Step::Sources, reason));
        }
        bytes.extend_from_slice(path.as_os_str().as_bytes());
        bytes.push(0);
    }
    Ok(bytes)
}

/// Whether a path stays where it is unpacked.
fn stays_inside(path: &Path) -> bool {
    path.components()
        .all(|part| matches!(part, Component::Normal(_)))
}

async fn send_file(
    path: &Path,
    command: &str,
    guest: &dyn Guest,
    log: &mut dyn Sink,
) -> Result<ExitCode, Failure> {
    let mut file = File::open(path).await.map_err(|error| Failure::Host {
        reason: "sources: the host could not read the working copy".into(),
        error,
    })?;
    let exec_file = Exec {
        stdin: Stdin::Reader(&mut file),
        ..Exec::new(command)
    };
    exec(exec_file, guest, log).await
}

async fn exec(exec: Exec<'_>, guest: &dyn Guest, log: &mut dyn Sink) -> Result<ExitCode, Failure> {
    guest
        .exec(exec, log)
        .await
        .map_err(|error| Failure::guest(Step::Sources, error))
}
