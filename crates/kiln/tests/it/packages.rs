//! Packages and repositories.

use crate::{
    harness::Kiln,
    servers::{Server, apt_repository},
};

#[test]
fn packages_come_from_the_distribution_and_from_a_repository_with_its_own_key() {
    let kiln = Kiln::new();
    let server = Server::http(&kiln.dir());
    apt_repository(&kiln.dir());
    let at = server.in_guest();
    let ended = kiln
        .run(&format!(
            r"
repositories:
  ours: http://{at}/apt stable main http://{at}/apt/key.asc
packages:
- kiln-greeting
- tree
tasks:
- use: |
    kiln-greeting
    tree --version
    apt-cache policy kiln-greeting
    cat /etc/apt/sources.list.d/ours.list
"
        ))
        .args(server.allow())
        .expect_success();
    ended.expect_line("use", "greetings from our own repository");
    let signed = "[signed-by=/etc/apt/keyrings/ours.gpg]";
    ended.expect_line("use", &format!("deb {signed} http://{at}/apt stable main"));
    ended.expect_log("packages: kiln-greeting tree");
    assert!(server.requests().contains(&"/apt/key.asc".to_owned()));
}
