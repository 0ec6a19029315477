//! `--allow HOST[:PORT]`, and the host's own package mirror.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use kiln_core::manifest::Manifest;
use kiln_vm::network::{Allowed, Network};

use crate::{
    cli::RunArgs,
    exit::Failure,
    host::apt::{self, Server},
    ui,
};

/// Images that install with apt.
const APT_DISTROS: &[&str] = &["debian", "ubuntu"];

/// What the guest may reach.
pub async fn network(args: &RunArgs, manifest: &Manifest) -> Result<Network, Failure> {
    if args.no_network {
        return Ok(Network::None);
    }
    let apt = installs_with_apt(manifest.image.distro());
    public(&args.allow, apt, &TO_A_PERSON).await
}

/// Who is told what is opened by itself.
pub struct Told {
    say: fn(&str),
    /// For how long.
    until: &'static str,
}

/// Whoever looks at one run.
pub const TO_A_PERSON: Told = Told {
    say: ui::note,
    until: ", for this run",
};

/// The operator of a worker.
pub const TO_THE_LOG: Told = Told {
    say: |text| tracing::info!("{text}"),
    until: " to guests",
};

/// The public internet, what the options name, and if `apt_opens` the host's
/// own mirror, which images need that install from it.
pub async fn public(options: &[String], apt_opens: bool, told: &Told) -> Result<Network, Failure> {
    let mut allow = Vec::new();
    for option in options {
        allow.extend(parse(option).await?);
    }
    if apt_opens {
        let mirror = mirror(&apt::closed(&apt::servers()).await, &allow, told);
        allow.extend(mirror);
    }
    Ok(Network::Public {
        allow: without_repeats(allow)?,
    })
}

/// Whether images of a distribution get their packages by apt.
pub fn installs_with_apt(distro: &str) -> bool {
    APT_DISTROS.contains(&distro)
}

/// Of the host's closed package servers those that are opened by themselves;
/// says so, and how the others are opened.
fn mirror(closed: &[(Server, Allowed)], opened: &[Allowed], told: &Told) -> Vec<Allowed> {
    let is_open = |server: &Allowed| {
        let same = |open: &&Allowed| {
            open.address == server.address && open.port.is_none_or(|port| Some(port) == server.port)
        };
        opened.iter().any(|open| same(&open))
    };
    let mut allow = Vec::new();
    for (server, allowed) in closed.iter().filter(|(_, allowed)| !is_open(allowed)) {
        if server.opens_by_itself(allowed.address) {
            (told.say)(&format!(
                "opening {server} ({}), this host's package mirror{}",
                allowed.address, told.until
            ));
            allow.push(*allowed);
        } else {
            (told.say)(&format!(
                "guests don't reach {server} ({}), which is this host's {}; {}",
                allowed.address,
                server.role,
                server.how_to_open(allowed.address)
            ));
        }
    }
    allow
}

/// Each once. Loopback addresses meet at 10.0.2.2, where a port has one owner.
fn without_repeats(allow: Vec<Allowed>) -> Result<Vec<Allowed>, Failure> {
    let mut kept: Vec<Allowed> = Vec::new();
    for allowed in allow {
        if kept.contains(&allowed) {
            continue;
        }
        let meets = |other: &&Allowed| {
            other.address.is_loopback()
                && allowed.address.is_loopback()
                && other.port == allowed.port
        };
        if let (Some(other), Some(port)) = (kept.iter().find(meets), allowed.port) {
            return Err(Failure::usage(format!(
                "--allow: {} and {} can't both be 10.0.2.2:{port} in the guest; name one of them",
                SocketAddr::new(other.address, port),
                SocketAddr::new(allowed.address, port)
            )));
        }
        kept.push(allowed);
    }
    Ok(kept)
}

async fn parse(option: &str) -> Result<Vec<Allowed>, Failure> {
    let fail = |why: &str| Failure::usage(format!("--allow {option}: {why}"));
    let (host, port) = split(option).map_err(fail)?;
    if host.is_empty() || host.contains('/') {
        return Err(fail(
            "names no host; write it as HOST or HOST:PORT, one option for each",
        ));
    }
    let addresses = addresses(host, port)
        .await
        .map_err(|error| fail(&error.to_string()))?;
    if addresses.is_empty() {
        return Err(fail("has no IPv4 address, and guests have no other"));
    }
    let allowed = |address| match refused(address, port) {
        Some(why) => Err(fail(why)),
        None => Ok(Allowed { address, port }),
    };
    addresses.into_iter().map(allowed).collect()
}

async fn addresses(host: &str, port: Option<u16>) -> std::io::Result<Vec<IpAddr>> {
    if host == "localhost" {
        return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
    }
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let found = tokio::net::lookup_host((host, port.unwrap_or(0))).await?;
    Ok(found
        .map(|address| address.ip())
        .filter(IpAddr::is_ipv4)
        .collect())
}

/// Why an address can't be opened.
fn refused(address: IpAddr, port: Option<u16>) -> Option<&'static str> {
    match address {
        address if address.is_loopback() && port.is_none() => Some(
            "an address of this host's loopback needs a port, like localhost:8080; the guest finds it at 10.0.2.2",
        ),
        IpAddr::V6(v6) if !v6.is_loopback() => Some("guests have no IPv6"),
        IpAddr::V4(v4) if v4 == Ipv4Addr::new(10, 0, 2, 2) => {
            Some("that is where the guest finds this host's loopback; name localhost:PORT")
        }
        _ => None,
    }
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
    use crate::host::apt::Role;

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

    fn allowed(address: &str, port: u16) -> Allowed {
        Allowed {
            address: address.parse().unwrap(),
            port: Some(port),
        }
    }

    #[test]
    fn a_repeated_address_counts_once_and_a_port_of_the_loopback_has_one_owner() {
        let two = [allowed("127.0.0.1", 80), allowed("127.0.0.1", 80)];
        assert_eq!(without_repeats(two.to_vec()).unwrap().len(), 1);
        let apart = [
            allowed("127.0.0.1", 80),
            allowed("127.0.0.1", 81),
            allowed("10.1.1.1", 80),
            allowed("10.1.1.2", 80),
        ];
        assert_eq!(without_repeats(apart.to_vec()).unwrap(), apart);
        let both = vec![allowed("127.0.0.1", 80), allowed("::1", 80)];
        let error = without_repeats(both).unwrap_err().message;
        assert_eq!(
            error,
            "--allow: 127.0.0.1:80 and [::1]:80 can't both be 10.0.2.2:80 in the guest; name one of them"
        );
    }

    #[test]
    fn only_archives_are_opened_by_themselves_and_none_of_the_loopback() {
        let server = |role| Server {
            host: "apt.example".into(),
            port: 3142,
            role,
        };
        let inside = allowed("10.1.1.1", 3142);
        let loopback = allowed("127.0.0.1", 3142);
        let closed = [
            (server(Role::Archive), inside),
            (server(Role::Archive), loopback),
            (server(Role::Proxy), allowed("10.1.1.2", 3142)),
        ];
        assert_eq!(mirror(&closed, &[], &TO_A_PERSON), [inside]);
        // Opened by hand already.
        assert_eq!(mirror(&closed, &[inside], &TO_A_PERSON), []);
    }
}
