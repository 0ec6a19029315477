//! Sources that need a key: git over SSH. The server is a guest.

use crate::{
    harness::{IMAGE, Kiln},
    servers::{Booted, sh},
};

/// A repository for whoever has the key; nobody gets in without one any more.
fn prepare(guest: &Booted<'_>, key: &str) {
    guest.ssh(&format!(
        r"
        set -e
        git config --global user.name Test
        git config --global user.email test@example.org
        git init -q -b main work
        cd work
        echo private >file
        git add file
        git commit -q -m private
        git clone -q --bare . ~/private.git
        mkdir -m 700 ~/.ssh
        echo '{key}' >~/.ssh/authorized_keys
        sudo sed -i 's/^PermitEmptyPasswords.*/PasswordAuthentication no/' /etc/ssh/sshd_config
        sudo systemctl restart ssh
        "
    ));
}

#[test]
fn a_private_repository_is_cloned_over_ssh_with_a_key_from_the_secrets() {
    let kiln = Kiln::new();
    sh(&kiln.dir(), "ssh-keygen -q -t ed25519 -N '' -f key");
    let guest = Booted::new(&kiln, IMAGE);
    prepare(&guest, &sh(&kiln.dir(), "cat key.pub"));
    let port = guest.port();
    kiln.file(
        "ssh_config",
        format!("Host git.example\n  HostName 10.0.2.2\n  Port {port}\n"),
    );
    let allow = ["--allow".to_owned(), format!("localhost:{port}")];

    let with_key = format!(
        r"
secrets: [deploy-key, ssh-config]
sources:
- ssh://build@10.0.2.2:{port}/~/private.git
- scp-like::build@git.example:private.git
tasks:
- look: cat private/file scp-like/file
"
    );
    let ended = kiln
        .run(&with_key)
        .args(&allow)
        .args(["--secret", "deploy-key=ssh:key"])
        .args(["--secret", "ssh-config=file:ssh_config:.ssh/config:600"])
        .expect_success();
    assert!(
        ended.task_log("look").ends_with("private\nprivate\n"),
        "{ended}"
    );

    let without =
        format!("sources: ['ssh://build@10.0.2.2:{port}/~/private.git']\ntasks: [{{a: b}}]\n");
    kiln.run(&without)
        .args(&allow)
        .expect_status(1)
        .expect_stdout("Permission denied")
        .expect_stdout("a private repository needs an SSH key: add one to the manifest's secrets");
}
