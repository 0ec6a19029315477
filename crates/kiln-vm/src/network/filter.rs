//! The rules that hold a guest inside the public internet, for nft.

use std::{fmt::Write as _, net::Ipv4Addr};

use super::{Allowed, routes};

/// An IPv4 network and the length of its prefix.
pub type Cidr = (Ipv4Addr, u32);

/// The network between the namespace and its uplink.
pub(super) const UPLINK_NETWORK: &str = "10.0.3.0/24";
/// Where the uplink answers DNS.
const UPLINK_DNS: &str = "10.0.3.3";

/// IANA's IPv4 special-purpose registry (RFC 6890 and its successors): every
/// block that is not globally reachable, the deprecated 6to4 relays, and
/// multicast.
const NOT_GLOBAL: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// What the namespace's resolver configuration says.
#[must_use]
pub fn resolv_conf() -> String {
    format!("nameserver {UPLINK_DNS}\n")
}

/// The rules for a guest that may reach these besides the public internet.
///
/// # Errors
/// When the kernel's routing tables can't be read: then nobody knows what to
/// close.
pub fn ruleset(allow: &[Allowed]) -> std::io::Result<String> {
    Ok(render(allow, &routes::connected()?))
}

/// Every network that a guest does not reach unless it is opened.
///
/// # Errors
/// When the kernel's routing tables can't be read.
pub fn closed_networks() -> std::io::Result<Vec<Cidr>> {
    let special = NOT_GLOBAL.iter().filter_map(|block| {
        let (network, prefix) = block.split_once('/')?;
        Some((network.parse().ok()?, prefix.parse().ok()?))
    });
    Ok(special.chain(routes::connected()?).collect())
}

/// TCP is refused with a reset: QEMU's stack swallows an ICMP refusal and the
/// guest would wait for its own timeout. IPv6 has no uplink and no exception.
fn render(allow: &[Allowed], connected: &[Cidr]) -> String {
    let mut blocked: Vec<String> = NOT_GLOBAL.iter().map(|&block| block.to_owned()).collect();
    blocked.extend(connected.iter().map(cidr));
    let mut rules = format!(
        "table inet kiln {{\n\
         \tset closed {{\n\
         \t\ttype ipv4_addr; flags interval; auto-merge;\n\
         \t\telements = {{ {} }}\n\
         \t}}\n\
         \tchain out {{\n\
         \t\ttype filter hook output priority 0; policy drop;\n\
         \t\toifname \"lo\" accept\n\
         \t\tip daddr {UPLINK_DNS} udp dport 53 accept\n\
         \t\tip daddr {UPLINK_DNS} tcp dport 53 accept\n",
        blocked.join(", ")
    );
    for allowed in allow {
        let std::net::IpAddr::V4(address) = allowed.address else {
            continue;
        };
        if address.is_loopback() {
            continue;
        }
        let port = allowed
            .port
            .map_or_else(String::new, |port| format!(" tcp dport {port}"));
        // Writing to a String can't fail.
        let _ = writeln!(rules, "\t\tip daddr {address}{port} accept");
    }
    rules.push_str(
        "\t\tip daddr @closed meta l4proto tcp reject with tcp reset\n\
         \t\tip daddr @closed reject\n\
         \t\tmeta nfproto ipv4 accept\n\
         \t\tmeta l4proto tcp reject with tcp reset\n\
         \t\treject\n\
         \t}\n\
         }\n",
    );
    rules
}

fn cidr((network, prefix): &(Ipv4Addr, u32)) -> String {
    format!("{network}/{prefix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connected_networks_are_closed_and_opened_addresses_come_before_them() {
        let allow = [Allowed {
            address: Ipv4Addr::new(203, 0, 113, 7).into(),
            port: Some(80),
        }];
        let rules = render(&allow, &[(Ipv4Addr::new(81, 2, 0, 0), 16)]);
        let opened = rules.find("203.0.113.7 tcp dport 80 accept").unwrap();
        assert!(opened < rules.find("@closed").unwrap());
        assert!(rules.contains(", 81.2.0.0/16 }"));
    }

    #[test]
    fn an_opened_loopback_address_opens_nothing_in_the_rules() {
        let allow = [Allowed {
            address: Ipv4Addr::LOCALHOST.into(),
            port: Some(80),
        }];
        assert_eq!(render(&allow, &[]), render(&[], &[]));
    }
}
