//! Secrets of each kind.

use crate::{
    harness::Kiln,
    servers::{Keyring, sh},
};

const UUID: &str = "46f739e5-4538-45dd-a79f-bf173b7a2ed9";

#[test]
fn secrets_of_each_kind_are_where_tasks_look_for_them() {
    let kiln = Kiln::new();
    sh(
        &kiln.dir(),
        "for key in first second; do ssh-keygen -q -t ed25519 -N '' -C $key -f $key; done",
    );
    kiln.file("key.asc", Keyring::new("signer").secret());
    kiln.file("token", b"s3cr3t\0\xff\n");
    let first = sh(&kiln.dir(), "cut -d' ' -f2 first.pub");
    let second = sh(&kiln.dir(), "cut -d' ' -f2 second.pub");
    let manifest = format!(
        r#"
secrets:
- deploy-key
- {UUID}
- signing-key
- token
- settings
- system
tasks:
- look: |
    echo "first=$(ssh-keygen -y -f ~/.ssh/id_rsa | cut -d' ' -f2)"
    echo "second=$(ssh-keygen -y -f ~/.ssh/{UUID} | cut -d' ' -f2)"
    echo "keys=$(ls ~/.ssh | wc -l)"
    echo text | gpg --batch --armor --sign --local-user signer@example.org | gpg --verify
    echo "token=$(od -An -tx1 ~/token | tr -d ' ')"
    echo "settings=$(od -An -tx1 ~/.config/app/settings | tr -d ' ')"
    echo "system=$(od -An -tx1 /tmp/by/absolute/path | tr -d ' ')"
    stat -c '%a %U %n' .ssh .ssh/id_rsa .ssh/{UUID} token .config/app/settings /tmp/by/absolute/path
"#
    );
    let ended = kiln
        .run(&manifest)
        .args(["--secret", "deploy-key=ssh:first"])
        .args(["--secret", &format!("{UUID}=second")])
        .args(["--secret", "signing-key=pgp:key.asc"])
        .args(["--secret", "token=token"])
        .args(["--secret", "settings=file:token:.config/app/settings:0640"])
        .args(["--secret", "system=file:token:/tmp/by/absolute/path:400"])
        .expect_success();
    let bytes = "73336372337400ff0a";
    for line in [
        &format!("first={first}"),
        &format!("second={second}"),
        "keys=3",
        &format!("token={bytes}"),
        &format!("settings={bytes}"),
        &format!("system={bytes}"),
        "700 build .ssh",
        "600 build .ssh/id_rsa",
        &format!("600 build .ssh/{UUID}"),
        "600 build token",
        "640 build .config/app/settings",
        "400 build /tmp/by/absolute/path",
    ] {
        ended.expect_line("look", line);
    }
    let log = ended.task_log("look");
    assert!(
        log.contains("Good signature from \"signer <signer@example.org>\""),
        "{ended}"
    );
    assert!(
        !(ended.stdout() + &ended.stderr()).contains("s3cr3t"),
        "{ended}"
    );
}

#[test]
fn secrets_that_nobody_gave_are_listed_before_a_guest_starts() {
    let kiln = Kiln::dummy();
    kiln.file("token", "x");
    kiln.run("secrets: [deploy-key, token, other]\ntasks: [{a: b}]\n")
        .args(["--secret", "token=token", "--secret", "stranger=token"])
        .expect_status(2)
        .expect_stderr("deploy-key, other were not given; give each with --secret NAME=FILE")
        .expect_stderr("the manifest has no secret `stranger`");
}
