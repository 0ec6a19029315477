//! The texts that a guest is given: `~/.buildenv`, the scripts in `~/.tasks`, and the commands
//! that run them. Pure text; the step engine writes and runs it.
//!
//! # Ending a build early
//!
//! `complete-build` ends the build with success from inside any task. Upstream says so by exit
//! status 255 alone, which is also what a failed `ssh` gives. Here it takes two: the function
//! writes [`COMPLETE_MARKER`] and exits with [`COMPLETE_STATUS`]. The step engine
//!
//! 1. runs each task by [`task_words`]; the first that it does, reading `~/.buildenv`, is to remove a
//!    marker left by an earlier one;
//! 2. when the status is [`COMPLETE_STATUS`], runs [`completed_command`]: if that succeeds, the
//!    task is a success and the tasks behind it are skipped; otherwise the task failed.
//!
//! So neither a command that fails by 255, nor a failure with another status after a
//! `complete-build` whose exit the script caught (`(complete-build) || true; false`), is taken
//! for success. As upstream, the function ends only the shell it is called in: from a subshell
//! or a script of its own the status reaches the task by `set -e`.

use std::fmt::Write as _;

use crate::manifest::{EnvValue, Manifest, Task, TaskName, Variable};

/// The directory of the tasks' scripts, relative to the home directory.
pub const TASKS_DIRECTORY: &str = ".tasks";

/// The file with the variables, relative to the home directory.
pub const BUILDENV: &str = ".buildenv";

/// The file that `complete-build` makes, relative to the home directory. No task can have
/// that name: theirs have no dots.
pub const COMPLETE_MARKER: &str = ".tasks/.complete";

/// The exit status of a task that called `complete-build`; see the module's text.
pub const COMPLETE_STATUS: u32 = 255;

/// What stands before each task's script, unless the image's `config.yml` replaces it.
///
/// `acurl` is a subshell, so that its `set +x` ends with it: the token is never traced.
pub const DEFAULT_PREAMBLE: &str = r#"#!/usr/bin/env bash
. ~/.buildenv
set -xe
acurl() (
  { set +x; } 2>/dev/null
  exec curl --oauth2-bearer "$OAUTH2_TOKEN" "$@"
)
"#;

/// The marker's place is settled when the file is read: a task may change `HOME` later.
const BUILDENV_HEAD: &str = "\
_kiln_complete=~/.tasks/.complete
complete-build() {
  { set +x; } 2>/dev/null
  : >| \"$_kiln_complete\"
  exit 255
}
[ ! -e \"$_kiln_complete\" ] || rm -f -- \"$_kiln_complete\"
";

/// The text of `~/.buildenv` (mode 755): the function `complete-build`, the manifest's
/// variables in its order, then `extra`, which the job cannot override: `CI_NAME`, `JOB_ID`,
/// `JOB_URL`, `OAUTH2_TOKEN` and what a submitter sets. A list becomes a bash array and is not
/// exported, because bash cannot.
///
/// The names in `extra` must be fit for `export`, and its values without NUL.
pub fn buildenv(manifest: &Manifest, extra: &[(String, String)]) -> String {
    let mut out = String::from(BUILDENV_HEAD);
    for variable in manifest.environment() {
        push_variable(&mut out, variable);
    }
    for (name, value) in extra {
        push_export(&mut out, name, value);
    }
    out
}

fn push_variable(out: &mut String, variable: &Variable) {
    let name = variable.name.as_str();
    match &variable.value {
        EnvValue::Text(text) | EnvValue::Number(text) => push_export(out, name, text),
        EnvValue::Bool(value) => push_export(out, name, &value.to_string()),
        EnvValue::Null => push_export(out, name, ""),
        EnvValue::List(texts) => {
            let texts: Vec<String> = texts.iter().map(|t| shell_quote(t)).collect();
            // Writing to a String never fails.
            let _ = writeln!(out, "{name}=({})", texts.join(" "));
        }
    }
}

fn push_export(out: &mut String, name: &str, value: &str) {
    let _ = writeln!(out, "export {name}={}", shell_quote(value));
}

/// The text of a task's file (mode 755): the preamble, then the script.
///
/// `preamble` replaces [`DEFAULT_PREAMBLE`] (an image's `config.yml` may have one). It must
/// begin with `#!` and read `~/.buildenv`.
pub fn task_script(task: &Task, preamble: Option<&str>) -> String {
    let preamble = preamble.unwrap_or(DEFAULT_PREAMBLE);
    let separator = if preamble.ends_with('\n') { "" } else { "\n" };
    format!("{preamble}{separator}{}\n", task.script)
}

/// The path of a task's file, relative to the home directory.
pub fn task_path(name: &TaskName) -> String {
    format!("{TASKS_DIRECTORY}/{name}")
}

/// The program that runs a task from the home directory, and its arguments. Its exit status is
/// the task's.
///
/// What the kernel and `env` would make of the usual first line is done here: each program that
/// runs costs an emulated guest a fiftieth of a second.
pub fn task_words(name: &TaskName, preamble: Option<&str>) -> Vec<String> {
    let path = format!("./{}", task_path(name));
    let preamble = preamble.unwrap_or(DEFAULT_PREAMBLE);
    if preamble.starts_with("#!/usr/bin/env bash\n") {
        vec!["bash".to_owned(), path]
    } else {
        vec![path]
    }
}

/// The command that tells, by success, that the last task called `complete-build`.
pub fn completed_command() -> String {
    format!("test -e {COMPLETE_MARKER}")
}

/// The text as one word of a POSIX shell, quoted when it needs to be.
///
/// A NUL character cannot be part of any word; the shell drops or ends at it.
pub fn shell_quote(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,".contains(c);
    if !text.is_empty() && text.chars().all(safe) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_quoted_only_when_it_needs_to_be() {
        assert_eq!(shell_quote("a/b:1.0"), "a/b:1.0");
        assert_eq!(shell_quote(""), "''");
        assert_eq!(shell_quote("it's"), r"'it'\''s'");
        assert_eq!(shell_quote("~"), "'~'");
        assert_eq!(shell_quote("a\nb"), "'a\nb'");
    }

    #[test]
    fn the_buildenv_has_the_marker_and_status_of_the_constants() {
        assert!(BUILDENV_HEAD.contains(&format!("~/{COMPLETE_MARKER}\n")));
        assert!(BUILDENV_HEAD.contains(&format!("exit {COMPLETE_STATUS}\n")));
    }
}
