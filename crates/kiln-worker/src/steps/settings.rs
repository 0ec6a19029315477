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

/// What the commands of all [`Part`]s are made of.
const FUNCTIONS: &str = r#"
put() { mkdir -p -- "$(dirname -- "$2")" && base64 -d >"$2" && chmod -- "$1" "$2"; }
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
    input: Cow<'a, [u8]>,
}

impl<'a> Command<'a> {
    fn put(path: &str, mode: u32, bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            line: format!("put {mode:o} {}", shell_quote(path)),
            input: bytes.into(),
        }
    }
}

fn parts<'a>(job: &'a Job, login: &Login) -> Vec<Part<'a>> {
    let file = |GuestFile { path, text }| {
        let path_there = in_home(&login.home, &path);
        Part {
            what: format!("~/{path}"),
            commands: vec![Command::put(&path_there, 0o755, text.into_bytes())],
        }
    };
    let mut parts: Vec<Part<'a>> = job.files(login).into_iter().map(file).collect();
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
                input: Cow::default(),
            }];
            let names = [Some(secret.uuid.as_str()), first_key.then_some("id_rsa")];
            for name in names.into_iter().flatten() {
                commands.push(Command::put(&format!("{ssh}/{name}"), 0o600, bytes));
            }
            commands
        }
        SecretKind::PgpKey(bytes) => vec![Command {
            line: "pgp".into(),
            input: bytes.into(),
        }],
        SecretKind::File { path, mode, bytes } => {
            vec![Command::put(&in_home(home, path), *mode, bytes)]
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
            // Base64 has no line like the one that ends it.
            let input = base64::encode(input);
            let _ = write!(script, "{line} <<'KILN' || exit {status}\n{input}\nKILN\n");
        }
    }
    script.push_str("exit 0\n");
    script
}
