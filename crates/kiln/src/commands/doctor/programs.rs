//! The programs of others that kiln starts.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use kiln_vm::namespace::SYSTEM_PATH;
use rustix::fs::Access;

use super::finding::Finding;

/// A program.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// The package that brings it, by Debian's name.
    pub package: &'static str,
    /// What it is for.
    pub purpose: &'static str,
}

const fn program(name: &'static str, package: &'static str, purpose: &'static str) -> Program {
    Program {
        name,
        package,
        purpose,
    }
}

/// No guest starts without these; they are looked for in the system's places
/// alone, as when a guest is started.
const NEEDED: &[Program] = &[
    program("qemu-img", "qemu-utils", "makes each guest's disk"),
    program("setpriv", "util-linux", "takes the capabilities from QEMU"),
    program(
        "nft",
        "nftables",
        "loads the rules that hold a guest off your network",
    ),
    program("slirp4netns", "slirp4netns", "is the guest's network"),
];

/// Some options want these, from the user's own PATH.
const HANDY: &[Program] = &[
    program(
        "ssh",
        "openssh-client",
        "`kiln ssh`, `kiln run --shell` and `--keep` enter guests with it",
    ),
    program(
        "git",
        "git",
        "`kiln run --here` asks it for the working copy",
    ),
    program(
        "tar",
        "tar",
        "`kiln run --here` packs the working copy with it",
    ),
];

/// The programs that `kiln run` starts.
pub fn look() -> Vec<Finding> {
    let debian = is_debian();
    let (there, missing) = sort(NEEDED, of_the_system);
    let mut findings = listed("programs", &there);
    findings.extend(
        missing
            .iter()
            .map(|program| Finding::broken(absent(program), install(&[program.package], debian))),
    );
    let (there, missing) = sort(HANDY, of_the_user);
    findings.extend(listed("programs for some options", &there));
    findings.extend(
        missing
            .iter()
            .map(|program| Finding::warning(absent(program), install(&[program.package], debian))),
    );
    findings
}

/// Which of them are there, and which are not.
pub fn sort(
    programs: &[Program],
    find: impl Fn(&str) -> Option<PathBuf>,
) -> (Vec<Program>, Vec<Program>) {
    programs
        .iter()
        .partition(|program| find(program.name).is_some())
}

/// One line for those that are there.
pub fn listed(title: &str, programs: &[Program]) -> Vec<Finding> {
    if programs.is_empty() {
        return Vec::new();
    }
    let names: Vec<&str> = programs.iter().map(|program| program.name).collect();
    vec![Finding::ok(format!("{title}: {}", names.join(", ")))]
}

fn absent(program: &Program) -> String {
    format!(
        "{} is not installed; {} {}",
        program.name,
        pronoun(program),
        program.purpose
    )
}

/// A purpose of several words with a subject of its own needs none of ours.
fn pronoun(program: &Program) -> &'static str {
    if program.purpose.starts_with('`') {
        ""
    } else {
        "it"
    }
}

/// How to get packages.
pub fn install(packages: &[&str], debian: bool) -> String {
    let mut packages = packages.to_vec();
    packages.sort_unstable();
    packages.dedup();
    let packages = packages.join(" ");
    if debian {
        format!("as root: apt-get install {packages}")
    } else {
        format!("install what Debian calls {packages}")
    }
}

/// Whether packages are installed by apt here.
pub fn is_debian() -> bool {
    of_the_system("apt-get").is_some()
}

/// A program in the system's places, whatever our own environment.
pub fn of_the_system(name: &str) -> Option<PathBuf> {
    find(name, SYSTEM_PATH.as_ref())
}

/// A program in the user's own PATH.
pub fn of_the_user(name: &str) -> Option<PathBuf> {
    find(name, &env::var_os("PATH").unwrap_or_default())
}

fn find(name: &str, path: &OsStr) -> Option<PathBuf> {
    let mut places = env::split_paths(path).map(|dir| dir.join(name));
    places.find(|place| is_program(place))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_an_executable_file_of_the_path() {
        assert!(find("sh", "/nonexistent:/bin".as_ref()).is_some());
        assert_eq!(find("sh", "/nonexistent".as_ref()), None);
        assert_eq!(find("passwd", "/etc".as_ref()), None);
        assert_eq!(find("ssh", "/etc".as_ref()), None);
    }

    #[test]
    fn what_is_missing_is_told_from_what_is_there() {
        let (there, missing) = sort(NEEDED, |name| (name == "nft").then(PathBuf::new));
        assert_eq!(listed("programs", &there), [Finding::ok("programs: nft")]);
        assert_eq!(missing.len(), NEEDED.len() - 1);
        assert!(listed("programs", &[]).is_empty());
    }

    #[test]
    fn packages_are_named_once_and_as_the_host_gets_them() {
        assert_eq!(
            install(&["zstd", "gpg", "zstd"], true),
            "as root: apt-get install gpg zstd"
        );
        assert_eq!(install(&["gpg"], false), "install what Debian calls gpg");
    }
}
