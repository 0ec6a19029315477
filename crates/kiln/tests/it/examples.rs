//! The manifests in `examples/`.

use std::{fs, path::PathBuf, time::Duration};

use crate::{
    harness::{Ended, Invocation, Kiln, root},
    servers::{Keyring, sh},
};

fn examples() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("examples")).expect("examples");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yml"));
    files.sort();
    files
}

fn example<'k>(kiln: &'k Kiln, name: &str) -> Invocation<'k> {
    let text = fs::read_to_string(root().join("examples").join(name)).expect(name);
    kiln.run(&text)
}

#[track_caller]
fn on_dummy(name: &str) -> Ended {
    example(&Kiln::dummy(), name).expect_success()
}

#[test]
fn every_example_is_right_and_explained_and_together_they_use_every_key() {
    let files = examples();
    let ended = Kiln::without_images()
        .kiln(["manifest", "check", "--json"])
        .args(&files)
        .expect_success();
    assert_eq!(ended.stderr(), "", "warnings");
    let readme = fs::read_to_string(root().join("examples/README.md")).expect("README.md");
    for file in &files {
        let name = file.file_name().expect("a name").to_string_lossy();
        assert!(
            readme.contains(&format!("[{name}]({name})")),
            "README.md says nothing of {name}"
        );
    }
    let manifests = ended.events();
    assert!(manifests.len() >= 10);
    for key in manifests[0].as_object().expect("an object").keys() {
        let used = manifests.iter().any(|manifest| !manifest[key].is_null());
        assert!(used, "no example has `{key}`");
    }
}

#[test]
fn examples_that_need_only_a_shell_run_on_the_dummy_machine() {
    let environment = on_dummy("environment.yml");
    for line in [
        "it's \"quoted\" as the shell wants it",
        "2",
        "4 jobs for version 3.10",
        "module: two words",
    ] {
        environment.expect_line("show", line);
    }
    environment.expect_line("next", "built by show");
    assert_eq!(
        on_dummy("matrix.yml")
            .task_log("test")
            .lines()
            .filter(|line| line.starts_with("      2 "))
            .count(),
        3
    );
    let artifacts = on_dummy("artifacts.yml");
    sh(
        &artifacts.folder().join("artifacts"),
        "sha256sum --check thing-1.0.tar.gz.sha256",
    );
    assert_eq!(
        on_dummy("complete-build.yml").artifact("report"),
        b"tested main\n"
    );
    on_dummy("farm.yml").expect_line("publish", "no token: not published");
}

#[test]
fn the_hello_example_builds_tests_and_keeps_a_program() {
    let ended = example(&Kiln::new(), "hello.yml").expect_success();
    ended.expect_line("test", "Hello from a fresh virtual machine! The sum is 42.");
    assert!(ended.artifact("hello").starts_with(b"\x7fELF"));
}

#[test]
fn the_services_example_talks_to_what_an_earlier_task_started() {
    example(&Kiln::new(), "services.yml").expect_success();
}

#[test]
fn the_secrets_example_signs_with_a_key_that_it_was_given() {
    let kiln = Kiln::new();
    sh(&kiln.dir(), "ssh-keygen -q -t ed25519 -N '' -f deploy");
    kiln.file("signing-key.asc", Keyring::new("signer").secret());
    kiln.file("token.txt", "0123456789");
    let ended = example(&kiln, "secrets.yml")
        .args([
            "--secret",
            "deploy-key=ssh:deploy",
            "--secret",
            "signing-key=pgp:signing-key.asc",
        ])
        .args(["--secret", "api-token=file:token.txt:.config/api-token:600"])
        .expect_success();
    ended.expect_line("use", "a token of 10 characters");
    assert!(
        ended
            .artifact("release.tar.gz.asc")
            .starts_with(b"-----BEGIN PGP SIGNATURE-----")
    );
}

#[test]
fn the_debian_package_example_builds_a_package_from_its_source() {
    let kiln = Kiln::new();
    let run = example(&kiln, "debian-package.yml");
    let ended = run.limit(Duration::from_secs(900)).expect_success();
    ended.expect_line("test", "built from source");
    assert!(ended.artifact("hello.deb").starts_with(b"!<arch>\n"));
}
