//! The rules that hold a guest inside the public internet, for nft.

use std::{fmt::Write as _, net::Ipv4Addr};

use super::{Allowed, routes};

/// An IPv4 network and the length of its prefix.
pub type Cidr = (Ipv4Addr, u32);

/// The network between the namespace and its uplink.
pub(super) const UPLINK_NETWORK: &str = "10.0.3.0/24";
/// Where the uplink answers DNS.
const UPLINK_DNS: &str = "10.0.3.3";

/// How many flows a guest may have open at once: TCP connections, and UDP's
/// until half a minute after their last packet. Those that are closed and only
/// wait for stragglers don't count. Package managers open some tens.
const MAX_FLOWS: u32 = 1024;
/// As many questions to DNS, counted apart, so that a guest that has all its
/// flows still finds names.
const MAX_QUESTIONS: u32 = 1024;
/// New flows a second, after a first burst. What is above is dropped, not
/// refused: TCP tries again by itself a second later, so a build is slowed down
/// and doesn't fail.
const NEW_FLOWS: u32 = 200;
/// See [`NEW_FLOWS`].
const BURST: u32 = 1000;

/// The descriptors that carrying this needs: a socket for each flow, and some.
pub(super) const UPLINK_DESCRIPTORS: u64 = 2 * (MAX_FLOWS + MAX_QUESTIONS) as u64;

/// IANA's IPv4 special-purpose registry (RFC 6890 and its successors): every
/// block that is not globally reachable, and multicast.
///
/// Some that are reachable are closed too, as nobody builds anything there: the
/// anycast addresses within 192.0.0.0/24 (.9 and .10), the deprecated 6to4
/// relays (192.88.99.0/24), AS112 and AMT (192.31.196.0/24, 192.52.193.0/24,
/// 192.175.48.0/24). Networks that treat these as special may route them
/// inwards.
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
    let mut closed: Vec<String> = NOT_GLOBAL.iter().map(|&block| block.to_owned()).collect();
    closed.extend(connected.iter().map(cidr));
    let closed = closed.join(", ");
    let opened = opened(allow);
    // What is refused is refused before it can count as a flow.
    format!(
        "table inet kiln {{
\tset closed {{
\t\ttype ipv4_addr; flags interval; auto-merge;
\t\telements = {{ {closed} }}
\t}}
\tchain out {{
\t\ttype filter hook output priority 0; policy drop;
\t\toifname \"lo\" accept
\t\tip daddr {UPLINK_DNS} meta l4proto {{ tcp, udp }} th dport 53 goto questions
{opened}\t\tip daddr @closed goto refused
\t\tmeta nfproto ipv4 goto flows
\t\tgoto refused
\t}}
\tchain questions {{
\t\tct state new limit rate over {NEW_FLOWS}/second burst {BURST} packets drop
\t\tct state new ct count over {MAX_QUESTIONS} drop
\t\taccept
\t}}
\tchain flows {{
\t\tct state new limit rate over {NEW_FLOWS}/second burst {BURST} packets drop
\t\tct state new ct count over {MAX_FLOWS} goto refused
\t\taccept
\t}}
\tchain refused {{
\t\tmeta l4proto tcp reject with tcp reset
\t\treject
\t}}
}}
"
    )
}

/// A rule for each opened address. Those of the host's loopback are carried
/// outside the rules.
fn opened(allow: &[Allowed]) -> String {
    let mut rules = String::new();
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
        let _ = writeln!(rules, "\t\tip daddr {address}{port} goto flows");
    }
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
        let opened = rules.find("203.0.113.7 tcp dport 80 goto flows").unwrap();
        assert!(opened < rules.find("@closed goto").unwrap());
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
