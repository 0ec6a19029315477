//! The guest's way to the outside, by making it once.

use std::{fs::OpenOptions, io, path::Path};

use kiln_vm::network::{self, CheckError};

use super::{finding::Finding, programs};

/// What slirp4netns makes its end of the network with.
const TUN: &str = "/dev/net/tun";

/// The device, the rules and the uplink. What is not installed is said
/// elsewhere and not tried.
pub async fn look(program: &Path) -> Vec<Finding> {
    let mut findings = vec![tun(OpenOptions::new()
        .read(true)
        .write(true)
        .open(TUN)
        .err()
        .as_ref())];
    let there = ["nft", "slirp4netns"]
        .iter()
        .all(|name| programs::of_the_system(name).is_some());
    if there && !findings.iter().any(Finding::is_broken) {
        findings.push(judge(network::check(program).await));
    }
    findings
}

fn tun(refused: Option<&io::Error>) -> Finding {
    let Some(error) = refused else {
        return Finding::ok(format!("{TUN}: readable and writable"));
    };
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "as root: chmod 666 /dev/net/tun, as most distributions have it; until then: `kiln run --no-network`"
        }
        io::ErrorKind::NotFound => {
            "as root: modprobe tun; in a container, give it the device (--device /dev/net/tun); until then: `kiln run --no-network`"
        }
        _ => {
            "as root: modprobe tun; in a container, allow it the device; until then: `kiln run --no-network`"
        }
    };
    Finding::broken(
        format!("{TUN}: {error}; guests have no network without it"),
        remedy,
    )
}

fn judge(checked: Result<(), CheckError>) -> Finding {
    match checked {
        Ok(()) => Finding::ok(
            "network: nft loaded a guest's rules in a namespace, slirp4netns attached its uplink",
        ),
        Err(CheckError::Rules(error)) => Finding::broken(
            format!("network: a guest's rules did not load: {error}"),
            "as root: modprobe -a nf_tables nft_reject_inet; the kernel must have nf_tables. Until then: `kiln run --no-network`",
        ),
        Err(CheckError::Uplink(error)) => Finding::broken(
            format!(
                "network: {}",
                error.trim_end_matches("; `kiln doctor` looks at what it needs")
            ),
            "slirp4netns 1.0 or newer is needed, and seccomp of the kernel for it. Until then: `kiln run --no-network`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_that_is_absent_and_the_one_that_is_closed_differ() {
        let line = |kind: io::ErrorKind| tun(Some(&kind.into())).to_string();
        assert!(line(io::ErrorKind::NotFound).contains("modprobe tun"));
        assert!(line(io::ErrorKind::PermissionDenied).contains("chmod 666 /dev/net/tun"));
        assert_eq!(
            tun(None).to_string(),
            "OK  /dev/net/tun: readable and writable"
        );
    }

    #[test]
    fn rules_and_uplink_fail_each_with_its_remedy() {
        let rules = judge(Err(CheckError::Rules(
            "nft refused the network's rules: x".into(),
        )));
        assert!(rules.is_broken() && rules.to_string().contains("modprobe -a nf_tables"));
        let uplink = judge(Err(CheckError::Uplink(
            "slirp4netns failed: x; `kiln doctor` looks at what it needs".into(),
        )));
        assert!(
            uplink
                .to_string()
                .starts_with("!!  network: slirp4netns failed: x — slirp4netns 1.0"),
            "{uplink}"
        );
    }
}
