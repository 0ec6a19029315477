//! The tasks' scripts, the environment and the secrets: all files at once, so
//! that a guest pays for one round trip.

use std::borrow::Cow;

use kiln_vm::machine::{Exec, File, Guest, Login, Put};

use crate::{
    Job, LogId, Secret, SecretKind, Step, job::GuestFile, log::LogSink, outcome::Failure,
    progress::Progress, script::in_home,
};

pub(super) async fn run(
    job: &Job,
    guest: &dyn Guest,
    progress: &mut Progress<'_>,
) -> Result<(), Failure> {
    progress
        .step_begins(Step::Settings, "tasks, environment, secrets")
        .await?;
    let mut log = progress.logs.sink(&LogId::Job);
    let (names, files): (Vec<String>, Vec<Put<'_>>) = files(job, guest.login()).into_iter().unzip();
    let failed = guest.put(&files, &mut log).await;
    let failed = failed.map_err(|error| Failure::guest(Step::Settings, error))?;
    if let Some(index) = failed {
        let what = names
            .get(index)
            .map_or("the files of this job", |name| name);
        return Err(refused(what));
    }
    for (name, secret) in job.secrets_in_order() {
        if let SecretKind::PgpKey(bytes) = &secret.kind {
            import(bytes, guest, name, &mut log).await?;
        }
    }
    progress.step_ends().await
}

fn refused(what: &str) -> Failure {
    Failure::step(Step::Settings, format!("the guest could not take {what}"))
}

/// The files, each with its name for a failure's sentence.
fn files<'a>(job: &'a Job, login: &Login) -> Vec<(String, Put<'a>)> {
    let mut files: Vec<(String, Put<'a>)> = Vec::new();
    for GuestFile { path, text } in job.files(login) {
        let file = File {
            path: in_home(&login.home, &path),
            mode: 0o755,
            bytes: text.into_bytes().into(),
        };
        files.push((format!("~/{path}"), Put::File(file)));
    }
    let mut keys = 0;
    // Preparing has refused jobs that lack one.
    for (name, secret) in job.secrets_in_order() {
        let is_key = matches!(secret.kind, SecretKind::SshKey(_));
        let puts = secret_files(secret, is_key && keys == 0, &login.home);
        files.extend(
            puts.into_iter()
                .map(|put| (format!("the secret {name}"), put)),
        );
        keys += usize::from(is_key);
    }
    files
}

fn secret_files<'a>(secret: &'a Secret, first_key: bool, home: &str) -> Vec<Put<'a>> {
    let file = |path: String, mode: u32, bytes: &'a [u8]| {
        let bytes = Cow::Borrowed(bytes);
        Put::File(File { path, mode, bytes })
    };
    match &secret.kind {
        SecretKind::SshKey(bytes) => {
            let ssh = in_home(home, ".ssh");
            let names = [Some(secret.uuid.as_str()), first_key.then_some("id_rsa")];
            let keys = names.into_iter().flatten();
            let keys = keys.map(|name| file(format!("{ssh}/{name}"), 0o600, bytes));
            let directory = Put::Directory {
                path: ssh.clone(),
                mode: 0o700,
            };
            [directory].into_iter().chain(keys).collect()
        }
        SecretKind::PgpKey(_) => Vec::new(),
        SecretKind::File { path, mode, bytes } => vec![file(in_home(home, path), *mode, bytes)],
    }
}

async fn import(
    key: &[u8],
    guest: &dyn Guest,
    name: &str,
    log: &mut LogSink<'_, '_>,
) -> Result<(), Failure> {
    let exec = Exec::with_stdin("exec gpg --batch --import", key);
    let code = guest.exec(exec, log).await;
    let code = code.map_err(|error| Failure::guest(Step::Settings, error))?;
    if code.success() {
        Ok(())
    } else {
        Err(refused(&format!("the secret {name}")))
    }
}
