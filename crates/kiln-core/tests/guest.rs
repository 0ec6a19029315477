//! What bash makes of the files that a guest is given. These tests run bash.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_core::guest_files::{
    BUILDENV, COMPLETE_STATUS, buildenv, completed_command, shell_quote, task_path, task_script,
    task_words,
};
use kiln_core::manifest::{EnvName, EnvValue, ImageName, Manifest, Task, TaskName, Variable};
use proptest::prelude::*;

/// A home directory of the test's own, removed at its end.
struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("guest-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(path.join(".tasks")).expect("a fresh directory");
        Self(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::write(&path, text).expect("writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
    }

    fn run(&self, command: &str) -> Output {
        Command::new("sh")
            .args(["-c", command])
            .current_dir(&self.0)
            .env_clear()
            .env("HOME", &self.0)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .output()
            .expect("there is a shell")
    }

    /// Runs a script as a task, as the step engine would.
    fn task(&self, name: &str, script: &str) -> Outcome {
        let name = TaskName::parse(name).expect("a name");
        let task = Task {
            name: name.clone(),
            script: script.to_owned(),
        };
        self.write(&task_path(&name), &task_script(&task, None));
        let output = self.run(&task_words(&name, None).join(" "));
        let status = output.status.code().expect("no signal");
        let complete =
            status == COMPLETE_STATUS as i32 && self.run(&completed_command()).status.success();
        Outcome {
            status,
            complete,
            output,
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Outcome {
    status: i32,
    complete: bool,
    output: Output,
}

impl Outcome {
    fn stdout(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).expect("UTF-8")
    }

    fn stderr(&self) -> String {
        String::from_utf8(self.output.stderr.clone()).expect("UTF-8")
    }
}

fn manifest(variables: &[(&str, EnvValue)]) -> Manifest {
    let variables = variables.iter().map(|(name, value)| Variable {
        name: EnvName::parse(name).expect("a name"),
        value: value.clone(),
    });
    Manifest {
        image: ImageName::parse("x/y").expect("a name"),
        arch: None,
        packages: None,
        repositories: None,
        sources: None,
        environment: Some(variables.collect()),
        secrets: None,
        tasks: None,
        triggers: None,
        shell: None,
        artifacts: None,
        oauth: None,
    }
}

fn home_with(variables: &[(&str, EnvValue)], extra: &[(&str, &str)]) -> Home {
    let home = Home::new();
    let extra: Vec<(String, String)> = extra
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect();
    home.write(BUILDENV, &buildenv(&manifest(variables), &extra));
    home
}

#[test]
fn every_kind_of_variable_reaches_a_task() {
    let list = EnvValue::List(vec!["a b".into(), String::new(), "$HOME".into()]);
    let variables = [
        ("TEXT", EnvValue::Text("a  b".into())),
        ("TRUE", EnvValue::Bool(true)),
        ("VERSION", EnvValue::Number("3.10".into())),
        ("NOTHING", EnvValue::Null),
        ("LIST", list),
    ];
    let home = home_with(&variables, &[("CI_NAME", "sourcehut"), ("JOB_ID", "12")]);
    let ran = home.task(
        "show",
        "printf '[%s]' \"$TEXT\" \"$TRUE\" \"$VERSION\" \"${NOTHING-unset}\" \"${LIST[@]}\"\n\
         env | grep -c '^LIST=' || true\nenv | grep '^JOB_ID='\necho \"$CI_NAME\"",
    );
    assert_eq!(
        ran.stdout(),
        "[a  b][true][3.10][][a b][][$HOME]0\nJOB_ID=12\nsourcehut\n"
    );
    assert_eq!(ran.status, 0);
}

#[test]
fn a_job_cannot_override_what_the_farm_says_of_it() {
    let home = home_with(
        &[("JOB_ID", EnvValue::Text("1".into()))],
        &[("JOB_ID", "2")],
    );
    assert_eq!(home.task("show", "echo $JOB_ID").stdout(), "2\n");
}

#[test]
fn a_task_is_traced_and_ends_at_the_first_failure() {
    let home = home_with(&[], &[]);
    let ran = home.task("fail", "true one\nfalse\necho not reached");
    assert_eq!(
        (ran.status, ran.complete, ran.stdout().as_str()),
        (1, false, "")
    );
    assert_eq!(ran.stderr(), "+ true one\n+ false\n");
}

#[test]
fn what_one_task_appends_the_next_one_sees() {
    let home = home_with(&[], &[]);
    assert_eq!(
        home.task("one", "echo 'export X=1' >> ~/.buildenv").status,
        0
    );
    assert_eq!(home.task("two", "echo $X").stdout(), "1\n");
}

#[test]
fn complete_build_ends_the_build_with_success_from_anywhere() {
    for script in [
        "complete-build\necho not reached",
        "if true; then complete-build; fi\necho not reached",
        "(complete-build)\necho not reached",
        "x=$(complete-build)\necho not reached",
        "f() { complete-build; }\nf\necho not reached",
        "export HOME=/nowhere\ncd /\ncomplete-build\necho not reached",
        "set -u -C\ntouch ~/.tasks/.complete\ncomplete-build\necho not reached",
        "trap 'true' EXIT\ncomplete-build\necho not reached",
        "bash -c '. ~/.buildenv; complete-build'\necho not reached",
        "printf 'a\\n' | while read -r x; do complete-build; done\necho not reached",
    ] {
        let ran = home_with(&[], &[]).task("early", script);
        assert!(ran.complete, "{script}: {} {}", ran.status, ran.stderr());
        assert_eq!(ran.stdout(), "", "{script}");
    }
}

#[test]
fn a_failure_by_255_is_no_success() {
    let home = home_with(&[], &[]);
    let ran = home.task("ssh", "exit 255");
    assert_eq!((ran.status, ran.complete), (255, false));
}

#[test]
fn a_failure_after_a_caught_complete_build_is_no_success() {
    let home = home_with(&[], &[]);
    let ran = home.task("caught", "(complete-build) || true\nfalse");
    assert_eq!((ran.status, ran.complete), (1, false));
    assert!(!home.task("fine", "(complete-build) || true").complete);
    assert!(
        !home.task("later", "exit 255").complete,
        "the marker is an earlier task's"
    );
}

#[test]
fn acurl_sends_the_token_and_does_not_trace_it() {
    let home = home_with(&[], &[("OAUTH2_TOKEN", "se cret")]);
    home.write("curl", "#!/bin/sh\nprintf '[%s]' \"$@\"\n");
    let ran = home.task(
        "call",
        "PATH=$HOME:$PATH\nacurl -f 'https://x/a b'\ntrue after",
    );
    assert_eq!(
        ran.stdout(),
        "[--oauth2-bearer][se cret][-f][https://x/a b]"
    );
    assert!(!ran.stderr().contains("cret"), "{}", ran.stderr());
    assert!(ran.stderr().contains("+ true after"), "tracing goes on");
}

#[test]
fn an_image_can_bring_its_own_preamble() {
    let task = Task {
        name: TaskName::parse("a").expect("a name"),
        script: "b".into(),
    };
    assert_eq!(task_script(&task, Some("#!/bin/sh")), "#!/bin/sh\nb\n");
}

fn value() -> impl Strategy<Value = String> {
    let special = prop::sample::select(vec![
        "'", "\"", "\\", "\n", "\n\n", "$(id)", "`id`", "$HOME", "${x}", "!", "!!", "~", "*", "?",
        " ", "\t", "\r", "#", ";", "&", "|", "é", "漢", "🦀", "\u{1}", "\u{7f}", "\u{85}", "-n",
        "=", "(", ")", "<(x)", "EOF", "\\\n", "'\\''",
    ]);
    let part = prop_oneof![special.prop_map(str::to_owned), any::<String>()];
    let text = prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat());
    text.prop_map(|text| text.replace('\0', ""))
}

proptest! {
    // Each case starts a shell.
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bash_sees_the_value_that_was_given(
        text in value(), extra in value(), list in prop::collection::vec(value(), 0..4)
    ) {
        let variables = [
            ("TEXT", EnvValue::Text(text.clone())),
            ("LIST", EnvValue::List(list.clone())),
        ];
        let home = home_with(&variables, &[("EXTRA", &extra)]);
        let ran = home.task("show", "set +x\nprintf '%s\\0' \"$TEXT\" \"$EXTRA\" \"${LIST[@]}\"");
        let mut expected = vec![text, extra];
        // With no further arguments printf still prints once, for none here.
        expected.extend(list);
        let seen = ran.output.stdout.split(|b| *b == 0).map(<[u8]>::to_vec);
        let mut seen: Vec<Vec<u8>> = seen.collect();
        prop_assert_eq!(seen.pop(), Some(Vec::new()));
        let expected: Vec<Vec<u8>> = expected.into_iter().map(String::into_bytes).collect();
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn a_quoted_text_is_one_word_of_any_posix_shell(text in value()) {
        let home = Home::new();
        let ran = home.run(&format!("printf '%s\\0' {}", shell_quote(&text)));
        prop_assert_eq!(ran.stdout, [text.as_bytes(), &[0]].concat());
    }
}
