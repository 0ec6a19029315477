//! Clones of the sources, one command each, so that one that fails is known.

use async_trait::async_trait;
use kiln_core::manifest::{Scm, Source};
use kiln_vm::machine::{Exec, ExitCode, Guest, Sink};

use super::overlay;
use crate::{
    Body, Job, LogId, Step,
    outcome::Failure,
    progress::Progress,
    script::{bash, in_home},
};

/// The exit status of the scripts when the directory is already there.
pub(super) const EXISTS: u32 = 201;
/// When the clone worked and the checkout of the reference did not.
const NO_REFERENCE: u32 = 202;
/// When only the submodules failed.
pub(super) const NO_SUBMODULES: u32 = 203;

/// Arguments: home, git, directory, url, reference.
const GIT: &str = r#"
cd -- "$1" || exit
[ ! -e "$3" ] && [ ! -L "$3" ] || exit 201
export GIT_TERMINAL_PROMPT=0
export GIT_SSH_COMMAND='ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR'
"$2" clone -- "$4" "$3" || exit
cd -- "$3" || exit
if [ -n "$5" ]; then "$2" checkout -q "$5" -- || exit 202; fi
"$2" submodule update --init --recursive || exit 203
"$2" rev-parse HEAD
"#;

/// Arguments as for git; the second is not used.
const HG: &str = r#"
cd -- "$1" || exit
[ ! -e "$3" ] && [ ! -L "$3" ] || exit 201
export HGPLAIN=+strictflags
ssh='ui.ssh=ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR'
hg --config "$ssh" clone -- "$4" "$3" || exit
cd -- "$3" || exit
if [ -n "$5" ]; then hg update --quiet --rev="$5" || exit 202; fi
hg log --rev=. --template='{node}\n'
"#;

pub(super) async fn run(
    job: &Job,
    guest: &dyn Guest,
    progress: &mut Progress<'_>,
) -> Result<(), Failure> {
    let sources = job.manifest.sources();
    if sources.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = sources.iter().map(Source::directory).collect();
    progress
        .step_begins(Step::Sources, &names.join(" "))
        .await?;
    for (index, source) in sources.iter().enumerate() {
        let overlay = job.overlays.iter().find(|o| o.source == index);
        let mut log = LastLine::new(progress.logs.sink(&LogId::Job));
        let code = match overlay {
            Some(overlay) => overlay::bring(overlay, source, guest, &mut log).await?,
            None => clone(source, guest, &mut log).await?,
        };
        let commit = log.commit();
        if !code.success() {
            return Err(Failure::step(Step::Sources, why(source, code)));
        }
        let directory = source.directory().to_owned();
        let Some(commit) = commit else {
            let message = format!("sources: {directory}: its commit could not be read");
            progress.warn(&message).await?;
            continue;
        };
        let body = Body::Source {
            index,
            directory,
            commit,
        };
        progress.tell(body).await?;
    }
    progress.step_ends().await
}

async fn clone(
    source: &Source,
    guest: &dyn Guest,
    log: &mut dyn Sink,
) -> Result<ExitCode, Failure> {
    let login = guest.login();
    let script = match source.scm() {
        Scm::Git => GIT,
        Scm::Hg => HG,
    };
    let command = bash(
        script,
        &[
            &login.home,
            &login.git,
            &in_home(&login.home, source.directory()),
            source.clone_url(),
            source.reference().unwrap_or_default(),
        ],
    );
    guest
        .exec(Exec::new(&command), log)
        .await
        .map_err(|error| Failure::guest(Step::Sources, error))
}

fn why(source: &Source, code: ExitCode) -> String {
    let directory = source.directory();
    match code.0 {
        EXISTS => format!("~/{directory} is already there; name another place: directory::url"),
        NO_REFERENCE => {
            let reference = source.reference().unwrap_or_default();
            format!("{directory} has no {reference} to check out")
        }
        NO_SUBMODULES => format!("a submodule of {directory} could not be cloned"),
        127 => format!("the image has no {}: add it to packages", source.scm()),
        code => format!(
            "could not clone {} (exit {code}); a private repository needs an SSH key: \
             add one to the manifest's secrets and use the repository's SSH address",
            without_password(source.clone_url())
        ),
    }
}

/// The URL without the password or token that may stand in it.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((user, host)) = authority.rsplit_once('@') else {
        return url.to_owned();
    };
    // What stands there alone is a name for SSH and often a token for HTTP.
    match user
        .split(':')
        .next()
        .filter(|_| !scheme.starts_with("http"))
    {
        Some(name) => format!("{scheme}://{name}@{host}{path}"),
        None => format!("{scheme}://{host}{path}"),
    }
}

/// Passes a command's output on and remembers the end of it.
struct LastLine<S> {
    sink: S,
    tail: Vec<u8>,
}

/// Enough for a SHA-256 and line ends.
const TAIL: usize = 80;

impl<S> LastLine<S> {
    fn new(sink: S) -> Self {
        Self {
            sink,
            tail: Vec::new(),
        }
    }

    /// The last line, when it is a commit's name.
    fn commit(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.tail);
        let line = text.trim_end().lines().next_back()?;
        let hexadecimal = line.bytes().all(|byte| byte.is_ascii_hexdigit());
        (hexadecimal && matches!(line.len(), 40 | 64)).then(|| line.to_owned())
    }
}

#[async_trait]
impl<S: Sink> Sink for LastLine<S> {
    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let from = bytes.len().saturating_sub(TAIL);
        self.tail.extend_from_slice(&bytes[from..]);
        let excess = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..excess);
        self.sink.write(bytes).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_told_without_its_password() {
        for (url, told) in [
            ("https://me:pw@example.org/a@b", "https://example.org/a@b"),
            ("https://example.org/a", "https://example.org/a"),
            ("git@example.org:a", "git@example.org:a"),
            ("ssh://git:pw@example.org/a", "ssh://git@example.org/a"),
            ("https://token@example.org", "https://example.org"),
        ] {
            assert_eq!(without_password(url), told);
        }
    }
}
