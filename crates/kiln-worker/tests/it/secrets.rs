//! Secrets arrive where they belong and are seen nowhere else.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use kiln_core::job::JobStatus;
use kiln_vm::dummy::Call;
use kiln_worker::SecretKind;

use crate::harness::Build;

const A: &str = "11111111-1111-1111-1111-111111111111";
const B: &str = "22222222-2222-2222-2222-222222222222";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn ssh_keys_are_files_and_the_first_is_the_default_key() {
    let ran = Build::of(&format!("secrets: [{B}, first]\ntasks:\n- build: echo\n"))
        .with_secret("first", A, SecretKind::SshKey(b"key a\n".into()))
        .with_secret(B, B, SecretKind::SshKey(b"key b\n".into()))
        .run()
        .await;
    assert_eq!(ran.outcome.status, JobStatus::Success, "{}", ran.all_text());
    let ssh = ran.build.home().join(".ssh");
    assert_eq!(mode(&ssh), 0o700);
    for (name, key) in [(A, "key a\n"), (B, "key b\n"), ("id_rsa", "key b\n")] {
        assert_eq!(fs::read_to_string(ssh.join(name)).unwrap(), key);
        assert_eq!(mode(&ssh.join(name)), 0o600);
    }
}

#[tokio::test]
async fn a_pgp_key_is_given_to_gpg() {
    let ran = Build::of("secrets: [signing]\ntasks:\n- build: echo\n")
        .with_secret("signing", A, SecretKind::PgpKey(b"\x99\0key".into()))
        .with_word("gpg", "echo \"$@\" >~/gpg-words; cat >~/gpg-key")
        .run()
        .await;
    let home = ran.build.home();
    assert_eq!(fs::read(home.join("gpg-key")).unwrap(), b"\x99\0key");
    assert_eq!(
        fs::read_to_string(home.join("gpg-words")).unwrap(),
        "--batch --import\n"
    );
}

#[tokio::test]
async fn a_file_has_its_path_and_mode_whatever_they_are() {
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let file = |path: &str, mode| SecretKind::File {
        path: path.into(),
        mode,
        bytes: bytes.clone(),
    };
    let build = Build::of("secrets: [one, two, three]\ntasks:\n- build: echo\n");
    let absolute = build.home().join("absolute/it's $(here)");
    let ran = build
        .with_secret("one", A, file("~/.config/a b", 0o640))
        .with_secret("two", B, file(absolute.to_str().unwrap(), 0o400))
        .with_secret("three", B, file("-n", 0o777))
        .run()
        .await;
    assert_eq!(ran.outcome.status, JobStatus::Success, "{}", ran.all_text());
    let home = ran.build.home();
    for (path, expected) in [
        (home.join(".config/a b"), 0o640),
        (absolute, 0o400),
        (home.join("-n"), 0o777),
    ] {
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(mode(&path), expected);
    }
}

#[tokio::test]
async fn one_that_the_guest_cannot_take_is_named() {
    let kind = SecretKind::File {
        path: "/proc/none/x".into(),
        mode: 0o600,
        bytes: b"sesame".into(),
    };
    let ran = Build::of("secrets: [fine, token]\ntasks:\n- build: echo\n")
        .with_secret("fine", A, SecretKind::SshKey(b"k".into()))
        .with_secret("token", B, kind)
        .run()
        .await;
    assert_eq!(
        ran.reason(),
        "settings: the guest could not take the secret token"
    );
    assert_eq!(ran.tasks(), "build=skipped");
}

#[tokio::test]
async fn no_secret_is_on_a_command_line_in_a_log_or_in_a_debug_text() {
    let ran = Build::of("secrets: [one, two]\ntasks:\n- build: echo\n")
        .with_secret("one", A, SecretKind::SshKey(b"sesame".into()))
        .with_secret(
            "two",
            B,
            SecretKind::File {
                path: "f".into(),
                mode: 0o600,
                bytes: b"sesame".into(),
            },
        )
        .run()
        .await;
    assert_eq!(ran.outcome.status, JobStatus::Success);
    let commands = ran.calls.iter().filter_map(|call| match call {
        Call::Exec(command) => Some(command.as_str()),
        _ => None,
    });
    let debug = format!("{:?}", ran.build.job);
    let all = [ran.all_text(), debug, commands.collect()].concat();
    // "sesame", in base64, in the numbers of a Vec<u8>.
    for shown in ["sesame", "c2VzYW1l", "115, 101"] {
        assert!(!all.contains(shown), "{shown}");
    }
}
