//! QEMU: for which guests, and whether new enough.

use std::{path::Path, process::Stdio};

use kiln_vm::{
    namespace::SYSTEM_PATH,
    qemu::{
        self,
        version::{self, OLDEST},
    },
};
use tokio::process::Command;

use super::{
    finding::Finding,
    programs::{self, install},
};

/// kiln's names of the architectures that it knows a QEMU for.
const ARCHS: &[(&str, &str)] = &[
    ("x86_64", "qemu-system-x86"),
    ("aarch64", "qemu-system-arm"),
    ("ppc64le", "qemu-system-ppc"),
    ("riscv64", "qemu-system-misc"),
    ("s390x", "qemu-system-misc"),
];

/// What is installed.
pub async fn look() -> Vec<Finding> {
    let here = std::env::consts::ARCH;
    let installed: Vec<(&str, &str)> = ARCHS
        .iter()
        .filter_map(|&(arch, _)| Some((arch, qemu::binary(arch)?)))
        .filter(|(_, binary)| programs::of_the_system(binary).is_some())
        .collect();
    let first = installed
        .iter()
        .find(|(arch, _)| *arch == here)
        .or(installed.first());
    let Some(&(arch, binary)) = first else {
        return vec![Finding::broken(
            "QEMU is not installed; guests run in it",
            install(&[package(here)], programs::is_debian()),
        )];
    };
    let said = match programs::of_the_system(binary) {
        Some(path) => version_of(&path).await,
        None => None,
    };
    let mut findings = vec![judge(binary, said.as_deref())];
    if arch != here {
        let remedy = install(&[package(here)], programs::is_debian());
        findings.push(Finding::warning(
            format!("QEMU for {here}, this host's own architecture, is not installed"),
            remedy,
        ));
    }
    let others: Vec<&str> = installed
        .iter()
        .map(|(_, name)| *name)
        .filter(|name| *name != binary)
        .collect();
    if !others.is_empty() {
        findings.push(Finding::ok(format!(
            "QEMU for other architectures, emulated: {}",
            others.join(", ")
        )));
    }
    findings
}

/// Whether there is any.
pub fn is_installed() -> bool {
    let binaries = ARCHS.iter().filter_map(|(arch, _)| qemu::binary(arch));
    binaries
        .into_iter()
        .any(|binary| programs::of_the_system(binary).is_some())
}

fn package(arch: &str) -> &'static str {
    ARCHS
        .iter()
        .find(|(name, _)| *name == arch)
        .map_or("qemu-system", |(_, package)| package)
}

async fn version_of(binary: &Path) -> Option<String> {
    let output = Command::new(binary)
        .arg("--version")
        .env_clear()
        .env("PATH", SYSTEM_PATH)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(str::to_owned)
}

fn judge(binary: &str, said: Option<&str>) -> Finding {
    let Some((major, minor)) = said.and_then(version::parse) else {
        return Finding::broken(
            format!("QEMU: {binary} --version says nothing that makes sense"),
            "run it by hand, and reinstall it",
        );
    };
    let what = format!("QEMU: {binary}, version {major}.{minor}");
    if (major, minor) < OLDEST {
        let (major, minor) = OLDEST;
        return Finding::broken(
            format!("{what}, is too old"),
            format!(
                "{major}.{minor} or newer is needed; Debian has it since 11, Ubuntu since 22.04"
            ),
        );
    }
    Finding::ok(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_qemu_is_in_the_way() {
        let line = |said| judge("qemu-system-x86_64", said).to_string();
        assert_eq!(
            line(Some("version 7.2.1")),
            "OK  QEMU: qemu-system-x86_64, version 7.2"
        );
        assert!(line(Some("version 10.0.0")).starts_with("OK"));
        assert!(
            line(Some("version 4.2.1"))
                .starts_with("!!  QEMU: qemu-system-x86_64, version 4.2, is too old — 5.2")
        );
        assert!(line(None).starts_with("!!"));
    }

    #[test]
    fn every_architecture_has_a_binary() {
        assert!(ARCHS.iter().all(|(arch, _)| qemu::binary(arch).is_some()));
    }
}
