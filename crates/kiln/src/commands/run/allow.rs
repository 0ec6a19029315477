//! `--allow HOST[:PORT]`, and the host's own package mirror.

use std::net::{IpAddr, Ipv4Addr};

use kiln_core::manifest::Manifest;
use kiln_vm::network::{Allowed, Network};

use crate::{cli::RunArgs, exit::Failure, host::apt, ui};

/// Images that install with apt.
const APT_DISTROS: &[&str] = &["debian", "ubuntu"];

/// What the guest may reach.
pub async fn network(args: &RunArgs, manifest: &Manifest) -> Result<Network, Failure> {
    if args.no_network {
        return Ok(Network::None);
    }
    let mut allow = Vec::new();
    for option in &args.allow {
        allow.extend(parse(option).await?);
    }
    if APT_DISTROS.contains(&manifest.image.distro()) {
        allow.extend(mirror().await);
    }
    Ok(Network::Public { allow })
}

/// The host's mirror, where it is not on the public internet.
pub async fn mirror() -> Vec<Allowed> {
    let closed = apt::closed(&apt::servers()).await;
    for (server, allowed) in &closed {
        ui::note(&format!(
            "opening {}:{} ({}), this host's package mirror, for this run",
            server.host, server.port, allowed.address
        ));
    }
    closed.into_iter().map(|(_, allowed)| allowed).collect()
}

async fn parse(option: &str) -> Result<Vec<Allowed>, Failure> {
    let fail = |why: &str| Failure::usage(format!("--allow {option}: {why}"));
    let (host, port) = split(option).map_err(fail)?;
    if host.is_empty() || host.contains('/') {
        return Err(fail(
            "names no host; write it as HOST or HOST:PORT, one option for each",
        ));
    }
    let host = if host == "localhost" {
        "127.0.0.1"
    } else {
        host
    };
    let addresses: Vec<IpAddr> = match host.parse() {
        Ok(address) => vec![address],
        Err(_) => tokio::net::lookup_host((host, port.unwrap_or(0)))
            .await
            .map_err(|error| fail(&error.to_string()))?
            .map(|address| address.ip())
            .filter(IpAddr::is_ipv4)
            .collect(),
    };
    if addresses.is_empty() {
        return Err(fail("has no IPv4 address, and guests have no other"));
    }
    for address in &addresses {
        match address {
            address if address.is_loopback() && port.is_none() => {
                return Err(fail(
                    "an address of this host's loopback needs a port, like localhost:8080; the guest finds it at 10.0.2.2",
                ));
            }
            IpAddr::V6(v6) if !v6.is_loopback() => return Err(fail("guests have no IPv6")),
            IpAddr::V4(v4) if *v4 == Ipv4Addr::new(10, 0, 2, 2) => {
                return Err(fail(
                    "that is where the guest finds this host's loopback; name localhost:PORT",
                ));
            }
            _ => {}
        }
    }
    Ok(addresses
        .into_iter()
        .map(|address| Allowed { address, port })
        .collect())
}

/// `host`, `host:port`, `[v6]:port`, `v6`.
fn split(option: &str) -> Result<(&str, Option<u16>), &'static str> {
    const PORT: &str = "what follows the colon is no port";
    if let Some(rest) = option.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("a bracket is open")?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port.parse().map_err(|_| PORT)?))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(PORT),
        };
    }
    match option.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => Ok((option, None)),
        Some((host, port)) => Ok((host, Some(port.parse().map_err(|_| PORT)?))),
        None => Ok((option, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_told_apart() {
        assert_eq!(split("git.example"), Ok(("git.example", None)));
        assert_eq!(split("10.1.2.3:22"), Ok(("10.1.2.3", Some(22))));
        assert_eq!(split("[::1]:80"), Ok(("::1", Some(80))));
        assert_eq!(split("::1"), Ok(("::1", None)));
        assert!(split("host:ssh").is_err());
        assert!(split("host:70000").is_err());
    }

    #[tokio::test]
    async fn the_hosts_loopback_needs_a_port() {
        let error = parse("localhost").await.unwrap_err();
        assert!(error.message.contains("needs a port"), "{}", error.message);
        let allowed = parse("localhost:8080").await.unwrap();
        assert_eq!(allowed[0].port, Some(8080));
        assert!(allowed[0].address.is_loopback());
    }
}
