//! What `kiln image build` needs. Nothing here is in the way of `kiln run`.

use std::{env, path::Path, process::Stdio};

use kiln_vm::namespace::SYSTEM_PATH;
use tokio::process::Command;

use super::{
    finding::Finding,
    programs::{self, Program},
};

/// mmdebstrap wants as many subordinate ids.
const SUBORDINATES: u64 = 65_536;

/// Programs that recipes start, with the package that brings each.
const PROGRAMS: &[(&str, &str)] = &[
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("zstd", "zstd"),
    ("qemu-img", "qemu-utils"),
    ("arch-test", "arch-test"),
    ("gpg", "gpg"),
];

/// The keys of Debian's archives.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Programs, keys, and the ids of ordinary users.
pub async fn look() -> Vec<Finding> {
    let root = rustix::process::geteuid().is_root();
    let mut needs: Vec<Program> = PROGRAMS
        .iter()
        .map(|&(name, package)| need(name, package))
        .collect();
    if !root {
        needs.push(need("newuidmap", "uidmap"));
    }
    let find = |name: &str| programs::of_the_user(name).or_else(|| programs::of_the_system(name));
    let (there, missing) = programs::sort(&needs, find);
    let mut findings = programs::listed("building images", &there);
    let keyring = Path::new(KEYRING).exists();
    findings.extend(lacking(&missing, keyring, programs::is_debian()));
    if !root {
        findings.push(subordinates().await);
    }
    findings
}

fn need(name: &'static str, package: &'static str) -> Program {
    Program {
        name,
        package,
        purpose: "",
    }
}

/// One line for all that is missing, with one command to get it.
fn lacking(missing: &[Program], keyring: bool, debian: bool) -> Option<Finding> {
    let mut names: Vec<&str> = missing.iter().map(|program| program.name).collect();
    let mut packages: Vec<&str> = missing.iter().map(|program| program.package).collect();
    if !keyring {
        names.push("the keys of Debian's archives");
        packages.push("debian-archive-keyring");
    }
    (!names.is_empty()).then(|| {
        Finding::warning(
            format!("building images: not here: {}", names.join(", ")),
            programs::install(&packages, debian),
        )
    })
}

async fn subordinates() -> Finding {
    let uid = rustix::process::getuid().as_raw();
    let user = user_name().await.unwrap_or_else(|| uid.to_string());
    let lacks = |file: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        !has_range(&text, &user, uid)
    };
    let files: Vec<&str> = ["/etc/subuid", "/etc/subgid"]
        .into_iter()
        .filter(|file| lacks(file))
        .collect();
    judge(&user, &files)
}

fn judge(user: &str, lacking: &[&str]) -> Finding {
    if lacking.is_empty() {
        return Finding::ok(format!("building images: {user} has subordinate ids"));
    }
    Finding::warning(
        format!(
            "building images: {user} has no {SUBORDINATES} subordinate ids in {}",
            lacking.join(" and ")
        ),
        format!(
            "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user} (another range if that one is taken)"
        ),
    )
}

/// Rows are `user:first:count`, the user by name or number (subuid(5)).
fn has_range(text: &str, user: &str, uid: u32) -> bool {
    let uid = uid.to_string();
    text.lines().any(|row| {
        let mut words = row.trim().split(':');
        let owner = words.next().unwrap_or_default();
        let count: Option<u64> = words.nth(1).and_then(|count| count.parse().ok());
        (owner == user || owner == uid) && count.is_some_and(|count| count >= SUBORDINATES)
    })
}

/// The user may be in no file of this host but in a directory server.
async fn user_name() -> Option<String> {
    let output = Command::new("id")
        .arg("-un")
        .env(
            "PATH",
            env::join_paths([SYSTEM_PATH]).unwrap_or_else(|_| SYSTEM_PATH.into()),
        )
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .ok()?;
    let name = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_the_users_by_name_or_number_and_large_enough() {
        let text = "root:100000:65536\nada:165536:65536\n1007:300000:65536\nsmall:1:1000\n";
        assert!(has_range(text, "ada", 1000));
        assert!(has_range(text, "eve", 1007));
        assert!(!has_range(text, "small", 1001));
        assert!(!has_range(text, "nobody", 65534));
        assert!(!has_range("ada:x", "ada", 1000));
    }

    #[test]
    fn the_line_names_the_file_and_the_command() {
        assert_eq!(
            judge("ada", &[]),
            Finding::ok("building images: ada has subordinate ids")
        );
        let line = judge("ada", &["/etc/subgid"]).to_string();
        assert!(
            line.contains("subordinate ids in /etc/subgid — as root: usermod --add-subuids"),
            "{line}"
        );
        assert!(line.starts_with("--"));
    }

    #[test]
    fn all_that_is_missing_comes_with_one_command() {
        assert_eq!(lacking(&[], true, true), None);
        let missing = [need("zstd", "zstd"), need("mke2fs", "e2fsprogs")];
        let line = lacking(&missing, false, true).map(|finding| finding.to_string());
        assert_eq!(
            line.as_deref(),
            Some(
                "--  building images: not here: zstd, mke2fs, the keys of Debian's archives — as root: apt-get install debian-archive-keyring e2fsprogs zstd"
            )
        );
    }
}
