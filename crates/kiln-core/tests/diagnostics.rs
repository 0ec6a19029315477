//! What is said about manifests that are wrong: every rule, its place and its remedy.

use kiln_core::manifest::{Manifest, Parsed, parse};

fn refusal(text: &str) -> String {
    match parse(text.as_bytes()) {
        Ok(parsed) => panic!("taken: {parsed:?}\n{text}"),
        Err(refused) => refused.to_string(),
    }
}

fn taken(text: &str) -> Parsed {
    parse(text.as_bytes()).unwrap_or_else(|refused| panic!("{refused}\n{text}"))
}

/// A manifest that is fine but for what is added.
fn with(extra: &str) -> String {
    format!("image: alpine/edge\ntasks:\n- a: b\n{extra}")
}

#[track_caller]
fn refused_with(text: &str, expected: &str) {
    let said = refusal(text);
    assert!(said.contains(expected), "wanted: {expected}\nsaid: {said}");
}

#[track_caller]
fn warned_with(text: &str, expected: &str) {
    let said: Vec<String> = taken(text)
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        said.iter().any(|w| w.contains(expected)),
        "wanted: {expected}\nsaid: {said:?}"
    );
}

#[track_caller]
fn silently_taken(text: &str) -> Manifest {
    let parsed = taken(text);
    assert_eq!(parsed.warnings, [], "{text}");
    parsed.manifest
}

#[test]
fn a_diagnostic_is_one_sentence_with_its_place_and_remedy() {
    assert_eq!(
        refusal("image: alpine/edge\ntasks:\n- a: b\n- Build It: c\n"),
        "line 4, column 3: tasks[1]: `Build It` cannot be the name of a task; use 1 to 128 \
         lower-case letters, digits, `_` and `-`"
    );
}

#[test]
fn every_error_is_reported_in_the_order_of_the_text() {
    let said = refusal("image: a/b/c\npackages: x\nenvironment:\n  1A: x\nshell: maybe\n");
    let lines: Vec<&str> = said
        .lines()
        .map(|l| l.split(',').next().unwrap_or(""))
        .collect();
    assert_eq!(lines, ["line 1", "line 2", "line 4", "line 5"], "{said}");
}

#[test]
fn a_file_full_of_errors_has_a_short_answer() {
    let said = refusal(&with(&format!("packages: [{}]\n", "[],".repeat(5000))));
    assert_eq!(said.lines().count(), 64);
}

#[test]
fn what_is_no_mapping_is_explained() {
    for empty in [
        "",
        "\n\n",
        "# only a comment\n",
        "---\n",
        "~",
        "null\n",
        "\u{feff}",
    ] {
        refused_with(empty, "the manifest is empty; write at least an `image`");
    }
    refused_with(
        "make\n",
        "this is a single value where `key: value` lines are needed",
    );
    refused_with(
        "- a\n- b\n",
        "this is a list where `key: value` lines are needed",
    );
    refused_with(
        "tasks:\n- a: b\n",
        "image: the manifest names no image; add a line such as",
    );
    refused_with("image:\ntasks:\n- a: b\n", "the manifest names no image");
}

#[test]
fn a_word_that_is_nearly_a_key_gets_a_suggestion() {
    warned_with(
        &with("secret: [abc]\n"),
        "unknown key `secret`; did you mean `secrets`?",
    );
    warned_with(&with("Environment: {}\n"), "did you mean `environment`?");
    warned_with(
        &with("pipeline: {}\n"),
        "unknown key `pipeline`; it is ignored: remove it",
    );
}

#[test]
fn a_submitter_is_tolerated_with_any_children() {
    silently_taken(&with(
        "submitter:\n  x: {enabled: true, a: 1, a: 2, [b]: c}\n",
    ));
    silently_taken(&with("submitter: 3\n"));
}

#[test]
fn a_scalar_is_text_wherever_text_is_meant() {
    let text = "image: 12\narch: 386\npackages: [3.10, true, 007]\ntasks:\n- 1: 2\n";
    let manifest = silently_taken(text);
    assert_eq!(manifest.image.as_str(), "12");
    assert_eq!(manifest.packages(), ["3.10", "true", "007"]);
    assert_eq!(manifest.tasks()[0].script, "2");
}

#[test]
fn a_list_or_mapping_is_not_text() {
    refused_with(
        "image: [a]\n",
        "image: this is a list where a text is needed",
    );
    refused_with(
        &with("packages: [{a: b}]\n"),
        "packages[0]: this is a mapping where a text",
    );
    refused_with(
        &with("packages:\n- x\n-\n"),
        "packages[1]: there is no value here",
    );
    refused_with(
        &with("packages: curl\n"),
        "packages: this is a single value where a list",
    );
    refused_with(
        &with("packages: ['']\n"),
        "packages[0]: this package is empty",
    );
    refused_with(
        &with("oauth: [a]\n"),
        "oauth: this is a list where a text is needed",
    );
    refused_with(
        &with("repositories: [a]\n"),
        "repositories: this is a list where `key: value`",
    );
    refused_with(
        &with("repositories: {a: }\n"),
        "repositories.a: there is no value here",
    );
}

#[test]
fn tasks_written_in_the_usual_wrong_ways_are_explained() {
    let image = "image: alpine/edge\n";
    refused_with(
        image,
        "tasks: there is nothing to run; add a list of tasks, or `shell: true`",
    );
    refused_with(
        &format!("{image}tasks: []\n"),
        "line 2, column 8: tasks: there is nothing",
    );
    silently_taken(&format!("{image}shell: true\n"));
    silently_taken(&format!("{image}tasks: []\nshell: yes\n"));
    let tasks = |rest: &str| format!("{image}tasks:\n{rest}");
    refused_with(
        &tasks("  a: b\n"),
        "the tasks are a mapping, which has no order; put `- `",
    );
    refused_with(
        &tasks("- make\n"),
        "tasks[0]: this task has no name and script; write it as",
    );
    refused_with(
        &tasks("- a: b\n  c: d\n"),
        "there are 2 entries in one task, `a` and `c`",
    );
    refused_with(
        &tasks("- a:\n"),
        "tasks[0]: the script is empty; write `|` after the name",
    );
    refused_with(&tasks("- a:\n  - b\n"), "tasks[0]: the script is a list");
    refused_with(&tasks("- {}\n"), "tasks[0]: this task is empty");
    refused_with(
        &tasks("- a: b\n- a: c\n"),
        "there already is a task `a` on line 3",
    );
    refused_with(
        &tasks("- a: \"x\\0\"\n"),
        "no script can hold a NUL character",
    );
    warned_with(
        &tasks("- a: ''\n"),
        "warning: tasks[0]: the script is empty",
    );
}

#[test]
fn variables_have_names_and_values_that_a_shell_can_hold() {
    let env = |rest: &str| with(&format!("environment:\n  {rest}\n"));
    refused_with(
        &env("A-B: c"),
        "environment: `A-B` cannot be the name of a variable",
    );
    refused_with(
        &env("A: {b: c}"),
        "environment.A: a variable cannot be a mapping",
    );
    refused_with(
        &env("A: [[b]]"),
        "environment.A[0]: this is a list where a text is needed",
    );
    refused_with(&env("A: \"\\0\""), "no variable can hold a NUL character");
    refused_with(
        &with("environment: [A=b]\n"),
        "environment: this is a list where `key: value`",
    );
    warned_with(
        &env("UID: 3"),
        "environment.UID: bash does not let `UID` be set",
    );
}

#[test]
fn values_that_yaml_versions_read_differently_are_kept_with_a_warning() {
    for value in [
        "yes", "No", "on", "off", "012", "1e3", "22:22", "0x10", "1_000",
    ] {
        let text = with(&format!("environment:\n  A: {value}\n"));
        warned_with(
            &text,
            &format!("`{value}` is passed on as it is written here; put it in"),
        );
        silently_taken(&with(&format!("environment:\n  A: '{value}'\n")));
    }
    silently_taken(&with(
        "environment:\n  A: 3.10\n  B: true\n  C: 1.2.3\n  D:\n",
    ));
}

#[test]
fn artifacts_are_few_and_different() {
    refused_with(
        &with("artifacts: [a,b,c,d,e,f,g,h,i]\n"),
        "there are 9 artifacts, and 8 are",
    );
    refused_with(
        &with("artifacts: [a/b, a/b]\n"),
        "artifacts[1]: `a/b` is listed twice",
    );
    refused_with(
        &with("artifacts: ['']\n"),
        "the path of this artifact is empty",
    );
    warned_with(
        &with("artifacts: [a/x, b/x]\n"),
        "another artifact is also called `x`",
    );
}

#[test]
fn triggers_say_what_and_when() {
    let trigger = |rest: &str| with(&format!("triggers:\n- {rest}\n"));
    refused_with(
        &trigger("{action: email}"),
        "triggers[0]: this trigger has no `condition`",
    );
    refused_with(
        &trigger("{condition: always}"),
        "triggers[0]: this trigger has no `action`",
    );
    let e = "triggers[0].action: `mail` is not an action of a trigger; did you mean `email`?";
    refused_with(&trigger("{condition: always, action: mail}"), e);
    let e = "`never` is not a condition of a trigger; write one of `success`, `failure`";
    refused_with(&trigger("{condition: never, action: email}"), e);
    let e = "triggers[0].url: `ftp://x` is not the address of a webhook";
    refused_with(
        &trigger("{condition: always, action: webhook, url: 'ftp://x'}"),
        e,
    );
    let e = "triggers[0]: this trigger has no `url`";
    refused_with(&trigger("{condition: always, action: webhook}"), e);
    let e = "has a control character in it";
    refused_with(
        &trigger("{condition: always, action: email, to: \"a\\nBcc: b\"}"),
        e,
    );
    let e = "this mail has no recipient; add `to` or `cc`";
    warned_with(&trigger("{condition: always, action: email}"), e);
    let e = "unknown key `urll`; did you mean `url`?";
    warned_with(
        &trigger("{condition: always, action: webhook, url: 'http://x', urll: y}"),
        e,
    );
}

#[test]
fn sources_are_checked_and_clashes_are_mentioned() {
    refused_with(
        &with("sources: ['-x']\n"),
        "sources[0]: the url `-x` begins with `-`",
    );
    refused_with(
        &with("sources: ['../x::https://h/p']\n"),
        "sources[0]: the directory `../x`",
    );
    refused_with(
        &with("sources: {a: b}\n"),
        "sources: this is a mapping where a list is needed",
    );
    warned_with(
        &with("sources: [https://a/x, https://b/x]\n"),
        "directory `x` is already taken",
    );
    warned_with(
        &with("sources: [example.org/x]\n"),
        "`example.org/x` is a path inside the guest",
    );
}

#[test]
fn secrets_are_named_by_uuid_or_name() {
    refused_with(
        &with("secrets: [ab]\n"),
        "secrets[0]: `ab` is neither a UUID nor a name",
    );
    refused_with(
        &with("secrets: {key: x}\n"),
        "secrets: this is a mapping where a list",
    );
}

#[test]
fn yaml_that_is_valid_but_not_meant_is_refused() {
    let doubled = with("packages: [a]\nshell: true\npackages: [b]\n");
    refused_with(
        &doubled,
        "line 6, column 1: the key `packages` is here for the second time, after line 4",
    );
    refused_with(
        &with("environment:\n  <<: {A: b}\n"),
        "merge keys (`<<`) are not supported",
    );
    refused_with(
        &with("packages: !vault [x]\n"),
        "the tag `!vault` means nothing",
    );
    refused_with(
        &with("packages: [!!binary aGk=]\n"),
        "the tag `!!binary` means nothing",
    );
    refused_with(
        &with("---\nimage: x\n"),
        "line 4, column 1: a second YAML document begins here",
    );
    refused_with(&with("[a]: b\n"), "a key is a list here");
    silently_taken(&with(
        "environment: {A: !!str yes, B: !!int 3}\npackages: !!seq [a]\n",
    ));
}

#[test]
fn yaml_that_is_not_valid_gets_a_hint() {
    refused_with(&with("artifacts:\n- *.tar\n"), "put quotes around it");
    refused_with(
        "image: a\ntasks:\n- a: b: c\n",
        "line 3, column 7: there is a `:` where no key",
    );
    refused_with("image: 'a\n", "a quoted text is not closed");
    refused_with("image: \"\\d\"\n", "this `\\` escape is not known");
    refused_with(
        "image: @x\n",
        "line 1, column 8: text cannot begin with `@` in YAML",
    );
    refused_with("image: [a\ntasks:\n", "close the `[` or `{` before it");
    refused_with(
        "image: [a\n",
        "a `[` or `{` is not closed, or a `,` is missing",
    );
    refused_with(
        "image: a\n  tasks: b\n",
        "there is a `:` where no key can be",
    );
    refused_with("image: a\ntasks:\n - a: b\n- c: d\n", "line 4");
}

#[test]
fn aliases_are_followed_within_limits() {
    let bomb: String = ('b'..='p')
        .map(|c| {
            let before = char::from_u32(u32::from(c) - 1).expect("a letter");
            format!("{c}: &{c} [*{before},*{before},*{before},*{before}]\n")
        })
        .collect();
    refused_with(
        &with(&format!("a: &a [lol]\n{bomb}")),
        "aliases of this manifest repeat too",
    );
    let long = format!(
        "x: &x {}\npackages: [{}]\n",
        "y".repeat(60_000),
        "*x,".repeat(50)
    );
    refused_with(&with(&long), "aliases of this manifest repeat too much");
    refused_with(
        &with("x: &x [*x]\n"),
        "this alias is inside the value it repeats",
    );
    let mut deep = String::from("a0: &a0 [x]\n");
    for n in 1..100 {
        deep += &format!("a{n}: &a{n} [*a{}]\n", n - 1);
    }
    refused_with(&with(&deep), "nested more than 64 deep");
}

#[test]
fn text_that_no_manifest_can_have_is_refused_with_its_place() {
    let bad = parse(b"image: x\n# \xff\n")
        .expect_err("not UTF-8")
        .to_string();
    assert!(
        bad.starts_with("line 2, column 3: the byte 0xff is not valid UTF-8"),
        "{bad}"
    );
    refused_with(
        "image: x\n\u{1b}[31m",
        "line 2, column 1: the control character U+001B",
    );
    refused_with(
        "image: \0\n",
        "line 1, column 8: the control character U+0000",
    );
    let utf16 = parse(b"\xff\xfei\0m\0").expect_err("UTF-16").to_string();
    assert!(utf16.contains("save the file as UTF-8"), "{utf16}");
    let large = "#".repeat(1024 * 1024 + 1);
    refused_with(
        &large,
        "the manifest has more than the 1048576 bytes that kiln reads",
    );
    warned_with(
        &with(&"#".repeat(16_400)),
        "the manifest has 16384 characters or more",
    );
}

#[test]
fn tabs_as_indentation_are_taken_with_a_warning() {
    let text = "image: x/y\ntasks:\n\t- a: |\n\t\tmake\tall\n\t\t\tinner\n";
    warned_with(
        text,
        "line 3, column 1: warning: lines are indented with tabs; indent with",
    );
    assert_eq!(taken(text).manifest.tasks()[0].script, "make\tall\n\tinner");
    let text = "image: x/y\ntasks:\n- a: |\n\tmake\n\t\tinner\n- b: c\n";
    assert_eq!(taken(text).manifest.tasks()[0].script, "make\n\tinner");
}

#[test]
fn the_warning_about_tabs_names_the_first_line_that_is_indented_with_one() {
    let text = "image: x/y\ntasks:\n  - a: |\n      all:\n      \tmake\nshell:\n\ttrue\nenvironment:\n\tA: b\n";
    warned_with(
        text,
        "line 7, column 1: warning: lines are indented with tabs",
    );
    assert_eq!(taken(text).manifest.tasks()[0].script, "all:\n\tmake");
}

#[test]
fn messages_repeat_no_character_that_moves_a_cursor_and_no_long_text() {
    let said = refusal(&format!("image: \"\\e[31m{}\"\n", "x".repeat(200)));
    assert!(
        !said.contains('\u{1b}') && said.contains('…') && said.len() < 300,
        "{said}"
    );
}

/// Each took seconds or the stack in one parser or another.
#[test]
fn hostile_shapes_end_soon_and_do_not_overflow_the_stack() {
    let many = 100_000;
    let shapes = [
        "[".repeat(many),
        "{".repeat(many),
        "{a: ".repeat(many),
        "- ".repeat(many),
        "? ".repeat(many),
        "a: &a [".repeat(many),
        "!!str ".repeat(many),
        "&a ".repeat(many),
        "[a: b, ".repeat(many),
        format!("[{}]", "a: b, ".repeat(many)),
        format!("x: [{}]", "[],".repeat(many)),
        format!("'{}", "a\n\n".repeat(many)),
        format!("\"{}", "\\u0041".repeat(many)),
        (0..many).map(|n| format!("k{n}: v\n")).collect(),
        (0..400).map(|n| " ".repeat(n) + "a:\n").collect(),
        "\n".repeat(many),
        "\t".repeat(many),
        format!("a: |\n{}", " \n\t\n".repeat(many)),
        "#\n".repeat(many),
        "---\n".repeat(many),
    ];
    for shape in shapes {
        let begin = std::time::Instant::now();
        let _ = parse(shape.as_bytes());
        let took = begin.elapsed();
        let head: String = shape.chars().take(20).collect();
        assert!(took.as_secs() < 5, "{head:?} took {took:?}");
        if took.as_millis() > 300 {
            println!("{head:?} took {took:?}");
        }
    }
}
