//! Files for a guest as a script for its shell: for guests that can do nothing
//! but run commands.
//!
//! The script comes by standard input, because what is on a command line can be
//! read by every process of the guest.

use std::fmt::Write as _;

use kiln_core::{base64, guest_files::shell_quote};

use crate::machine::{ExitCode, File, Put};

/// The login shell's line that runs the script which it reads.
///
/// Read as a whole first: bash reads a script from a pipe byte by byte.
pub(crate) const FROM_STDIN: &str = r#"exec bash -c 'eval "$(cat)"'"#;

/// Where each file's exit status begins, so that it tells which one failed.
const FIRST_STATUS: usize = 10;
/// How many files have a status of their own.
const STATUSES: usize = 200;

/// Each program that runs in an emulated guest costs tens of milliseconds, so
/// the shell does what it can itself; only bytes that are no text of its own
/// need `base64`. Secrets are nobody else's, not even while they are written.
const FUNCTIONS: &str = r#"
parent() { [ -d "${1%/*}" ] || mkdir -p -- "${1%/*}"; }
text() { parent "$1" && printf %s "$2" >"$1"; }
bytes() { parent "$1" && base64 -d >"$1"; }
directory() { mkdir -p -- "$1" && chmod "$2" -- "$1"; }
umask 077
"#;

/// The script that puts all of these there.
pub(crate) fn script(files: &[Put<'_>]) -> String {
    let mut script = FUNCTIONS.to_owned();
    for (index, file) in files.iter().enumerate() {
        let status = FIRST_STATUS + index.min(STATUSES);
        // Writing to a String never fails.
        let _ = match file {
            Put::Directory { path, mode } => {
                let path = shell_quote(path);
                writeln!(script, "directory {path} {mode:o} || exit {status}")
            }
            Put::File(file) => write_file(&mut script, file, status),
        };
    }
    script.push_str(&modes(files));
    script.push_str("exit 0\n");
    script
}

fn write_file(script: &mut String, file: &File<'_>, status: usize) -> std::fmt::Result {
    let path = shell_quote(&file.path);
    // A shell's words can't have a zero byte, and its locale may change what is
    // no UTF-8.
    match std::str::from_utf8(&file.bytes) {
        Ok(text) if !text.contains('\0') => {
            writeln!(script, "text {path} {} || exit {status}", shell_quote(text))
        }
        // Base64 has no line like the one that ends it.
        _ => {
            let input = base64::encode(&file.bytes);
            writeln!(
                script,
                "bytes {path} <<'KILN' || exit {status}\n{input}\nKILN"
            )
        }
    }
}

/// One command for all files of the same mode in a row.
fn modes(files: &[Put<'_>]) -> String {
    let mut script = String::new();
    let all: Vec<(usize, &File<'_>)> = files
        .iter()
        .enumerate()
        .filter_map(|(index, file)| match file {
            Put::File(file) => Some((index, file)),
            Put::Directory { .. } => None,
        })
        .collect();
    for run in all.chunk_by(|one, other| one.1.mode == other.1.mode) {
        let Some((index, first)) = run.first() else {
            continue;
        };
        let paths: Vec<String> = run
            .iter()
            .map(|(_, file)| shell_quote(&file.path))
            .collect();
        let status = FIRST_STATUS + index.min(&STATUSES);
        let _ = writeln!(
            script,
            "chmod {:o} -- {} || exit {status}",
            first.mode,
            paths.join(" ")
        );
    }
    script
}

/// Which of so many files the script ended at.
pub(crate) fn failed(code: ExitCode, files: usize) -> Option<usize> {
    if code.success() {
        return None;
    }
    let index = usize::try_from(code.0).unwrap_or(0);
    let index = index.saturating_sub(FIRST_STATUS);
    Some(index.min(files.saturating_sub(1)))
}
