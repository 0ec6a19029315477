//! The networks that this host is connected to and its own addresses, from
//! the kernel's own tables. A guest reaches none of them.

use std::net::Ipv4Addr;

use super::filter::Cidr;

/// A network of a shorter prefix is a way to the internet (a VPN's two halves
/// of it), not a network around this host.
const SHORTEST: u32 = 8;

/// Everything that this host is connected to, IPv4. The guest has no IPv6.
pub(super) fn connected() -> std::io::Result<Vec<Cidr>> {
    let routes = std::fs::read_to_string("/proc/net/route")?;
    let trie = std::fs::read_to_string("/proc/net/fib_trie")?;
    let mut networks = connected_networks(&routes);
    networks.extend(
        own_addresses(&trie)
            .into_iter()
            .map(|address| (address, 32)),
    );
    Ok(networks)
}

/// Rows of /proc/net/route without a gateway; its numbers are hexadecimal in
/// the machine's own byte order.
fn connected_networks(table: &str) -> Vec<Cidr> {
    table
        .lines()
        .skip(1)
        .filter_map(connected_network)
        .collect()
}

fn connected_network(row: &str) -> Option<Cidr> {
    let words: Vec<&str> = row.split_whitespace().collect();
    let hex = |index: usize| {
        let word = words.get(index)?;
        u32::from_str_radix(word, 16).ok()
    };
    let (network, gateway, mask) = (hex(1)?, hex(2)?, hex(7)?);
    let prefix = mask.count_ones();
    (gateway == 0 && prefix >= SHORTEST).then(|| (Ipv4Addr::from(network.to_ne_bytes()), prefix))
}

/// The leaves of /proc/net/fib_trie that are `LOCAL`.
fn own_addresses(trie: &str) -> Vec<Ipv4Addr> {
    let mut addresses = Vec::new();
    let mut leaf: Option<Ipv4Addr> = None;
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line == "/32 host LOCAL" {
            addresses.extend(leaf);
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_without_a_gateway_is_a_connected_network() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
             eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
             eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(
            connected_networks(table),
            [(Ipv4Addr::new(192, 0, 2, 0), 24)]
        );
    }

    #[test]
    fn own_addresses_are_the_local_leaves() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
             Local:\n     |-- 192.0.2.2\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n";
        assert_eq!(own_addresses(trie), [Ipv4Addr::new(192, 0, 2, 2)]);
    }
}
