//! `kiln manifest check`.

use serde_json::{Value, json};

use crate::harness::Kiln;

#[test]
fn a_right_manifest_is_ok_and_its_normal_form_is_json() {
    let kiln = Kiln::without_images();
    kiln.file("right.yml", "image: debian/bookworm\nenvironment: {N: 3.10}\ntasks:\n- a: |\n    b\n- c: d\nsecrets: [some-key]\n");
    let ok = kiln
        .kiln(["manifest", "check", "right.yml"])
        .expect_success();
    assert_eq!(ok.stdout(), "right.yml: OK\n");
    let printed = kiln
        .kiln(["manifest", "check", "--json", "right.yml"])
        .expect_success();
    let normal: Value = serde_json::from_str(&printed.stdout()).expect("JSON");
    let object = normal.as_object().expect("an object");
    let keys: Vec<&str> = object.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "image",
            "arch",
            "packages",
            "repositories",
            "sources",
            "environment",
            "secrets",
            "tasks",
            "triggers",
            "shell",
            "artifacts",
            "oauth"
        ]
    );
    assert_eq!(normal["image"], "debian/bookworm");
    assert_eq!(normal["tasks"], json!([{"a": "b"}, {"c": "d"}]));
    assert_eq!(normal["packages"], Value::Null);
    assert_eq!(normal["secrets"], json!(["some-key"]));
}

#[test]
fn a_wrong_manifest_is_named_with_its_place_and_the_remedy_and_the_others_are_checked_too() {
    let kiln = Kiln::without_images();
    kiln.file(
        "wrong.yml",
        "image: debian/bookworm\ntasks:\n- Build It: make\n",
    );
    kiln.file(
        "odd.yml",
        "image: debian/bookworm\nsecret: [x]\ntasks: [{a: b}]\n",
    );
    let ended = kiln
        .kiln(["manifest", "check", "wrong.yml", "odd.yml", "missing.yml"])
        .expect_status(2);
    ended
        .expect_stderr(
            "wrong.yml: line 3, column 3: tasks[0]: `Build It` cannot be the name of a task",
        )
        .expect_stderr("use 1 to 128 lower-case letters")
        .expect_stderr("warning: odd.yml: line 2, column 1: ")
        .expect_stderr("did you mean `secrets`?")
        .expect_stderr("missing.yml: No such file")
        .expect_stdout("odd.yml: OK\n");
}
