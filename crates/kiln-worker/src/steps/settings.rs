//! The tasks' scripts, the environment and the secrets: one command, so that a
//! guest pays for one round trip.
//!
//! The script that brings the files comes by standard input, because what is
//! on a command line can be read by every process of the guest.

use std::{borrow::Cow, fmt::Write as _};

use kiln_core::guest_files::shell_quote;
use kiln_vm::machine::{Exec, Guest, Login};

use crate::{
    Job, LogId, Secret, SecretKind, Step, base64,
    job::GuestFile,
    outcome::Failure,
    progress::Progress,
    script::{FROM_STDIN, in_home},
};

/// Where each file's exit status begins, so that it tells which one failed.
const FIRST_STATUS: usize = 10;
/// How many files have a status of their own.
const STATUSES: usize = 200;

/// What the commands of all [`Part`]s are made of. Each program that runs in an
/// emulated guest costs tens of milliseconds, so the shell does what it can
/// itself; only bytes that are no text of its own need `base64`.
const FUNCTIONS: &str = r#"
parent() { [ -d "${1%/*}" ] || mkdir -p -- "${1%/*}"; }
text() { parent "$1" && printf %s "$2" >"$1"; }
bytes() { parent "$1" && base64 -d >"$1"; }
private() { mkdir -p -- "$1" && chmod 700 -- "$1"; }
pgp() { base64 -d | gpg --batch --import; }
"#;

pub(super) async fn run(
    job: &Job,
    guest: &dyn Guest,
    progress: &mut Progress<'_>,
) -> Result<(), Failure> {
    let parts = parts(job, guest.login());
    progress
        .step_begins(Step::Settings, "tasks, environment, secrets")
        .await?;
    let mut log = progress.logs.sink(&LogId::Job);
    let script = script(&parts);
    let code = guest
        .exec(Exec::with_stdin(FROM_STDIN, script.as_bytes()), &mut log)
        .await
        .map_err(|error| Failure::guest(Step::Settings, error))?;
    if !code.success() {
        let what = usize::try_from(code.0)
            .ok()
            .and_then(|code| parts.get(code.checked_sub(FIRST_STATUS)?))
            .map_or("the files of this job", |part| part.what.as_str());
        let reason = format!("the guest could not take {what}");
        return Err(Failure::step(Step::Settings, reason));
    }
    progress.step_ends().await
}

/// One thing for the guest.
struct Part<'a> {
    /// What it is, for its failure's sentence.
    what: String,
    /// What puts it where it belongs.
    commands: Vec<Command<'a>>,
}

/// A shell's command and what it reads.
struct Command<'a> {
    line: String,
    input: Option<Cow<'a, [u8]>>,
}

impl<'a> Command<'a> {
    fn put(path: &str, bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        let bytes = bytes.into();
        let path = shell_quote(path);
        // A shell's words can't have a zero byte, and its locale may change
        // what is no UTF-8.
        match std::str::from_utf8(&bytes) {
            Ok(text) if !text.contains('\0') => Self {
                line: format!("text {path} {}", shell_quote(text)),
                input: None,
            },
            _ => Self {
                line: format!("bytes {path}"),
                input: Some(bytes),
            },
        }
    }

    fn mode(mode: u32, paths: &[String]) -> Self {
        let paths: Vec<String> = paths.iter().map(|path| shell_quote(path)).collect();
        Self {
            line: format!("chmod {mode:o} -- {}", paths.join(" ")),
            input: None,
        }
    }
}

fn parts<'a>(job: &'a Job, login: &Login) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let mut paths = Vec::new();
    for GuestFile { path, text } in job.files(login) {
        let path_there = in_home(&login.home, &path);
        parts.push(Part {
            what: format!("~/{path}"),
            commands: vec![Command::put(&path_there, text.into_bytes())],
        });
        paths.push(path_there);
    }
    parts.push(Part {
        what: "the tasks' scripts".into(),
        commands: vec![Command::mode(0o755, &paths)],
    });
    let mut keys = 0;
    // Preparing has refused jobs that lack one.
    for (name, secret) in job.secrets_in_order() {
        let is_key = matches!(secret.kind, SecretKind::SshKey(_));
        parts.push(Part {
            what: format!("the secret {name}"),
            commands: secret_commands(secret, is_key && keys == 0, &login.home),
        });
        keys += usize::from(is_key);
    }
    parts
}

fn secret_commands<'a>(secret: &'a Secret, first_key: bool, home: &str) -> Vec<Command<'a>> {
    match &secret.kind {
        SecretKind::SshKey(bytes) => {
            let ssh = in_home(home, ".ssh");
            let mut commands = vec![Command {
                line: format!("private {}", shell_quote(&ssh)),
                input: None,
            }];
            let names = [Some(secret.uuid.as_str()), first_key.then_some("id_rsa")];
            let names = names.into_iter().flatten();
            let paths: Vec<String> = names.map(|name| format!("{ssh}/{name}")).collect();
            commands.extend(paths.iter().map(|path| Command::put(path, bytes)));
            commands.push(Command::mode(0o600, &paths));
            commands
        }
        SecretKind::PgpKey(bytes) => vec![Command {
            line: "pgp".into(),
            input: Some(bytes.into()),
        }],
        SecretKind::File { path, mode, bytes } => {
            let path = in_home(home, path);
            vec![Command::put(&path, bytes), Command::mode(*mode, &[path])]
        }
    }
}

fn script(parts: &[Part<'_>]) -> String {
    let mut script = FUNCTIONS.to_owned();
    // Secrets are nobody else's, not even while they are written.
    script.push_str("umask 077\n");
    for (index, part) in parts.iter().enumerate() {
        let status = FIRST_STATUS + index.min(STATUSES);
        for Command { line, input } in &part.commands {
            let _ = match input {
                None => writeln!(script, "{line} || exit {status}"),
                // Base64 has no line like the one that ends it.
                Some(input) => {
                    let input = base64::encode(input);
                    writeln!(script, "{line} <<'KILN' || exit {status}\n{input}\nKILN")
                }
            };
        }
    }
    script.push_str("exit 0\n");
    script
}
