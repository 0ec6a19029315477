//! The networks that this host is connected to and its own addresses, from
//! all of the kernel's tables. A guest reaches none of them.
//!
//! They are read when a guest starts; a network that the host joins later is
//! open to that guest unless IANA's list has it.

use std::net::Ipv4Addr;

use super::{filter::Cidr, rtnetlink};

/// A network of a shorter prefix is a way to the internet (a default route, a
/// VPN's two halves of it), not a network around this host.
const SHORTEST: u8 = 8;

/// struct rtmsg.
const ROUTE_HEADER: usize = 12;
/// struct ifaddrmsg.
const ADDRESS_HEADER: usize = 8;

const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_BROADCAST: u8 = 3;
const RTN_ANYCAST: u8 = 4;

const RTA_DST: u16 = 1;
const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RTA_VIA: u16 = 18;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

/// Everything that this host is connected to, IPv4. The guest has no IPv6.
pub(super) fn connected() -> std::io::Result<Vec<Cidr>> {
    let routes = rtnetlink::dump(rtnetlink::GET_ROUTE)?;
    let addresses = rtnetlink::dump(rtnetlink::GET_ADDRESS)?;
    let mut networks: Vec<Cidr> = routes.iter().filter_map(|body| of_route(body)).collect();
    networks.extend(addresses.iter().flat_map(|body| of_address(body)));
    networks.sort_unstable();
    networks.dedup();
    Ok(networks)
}

/// A route's network, unless another router leads there.
fn of_route(body: &[u8]) -> Option<Cidr> {
    let (&prefix, &kind) = (body.get(1)?, body.get(7)?);
    let closed = match kind {
        RTN_LOCAL | RTN_BROADCAST | RTN_ANYCAST => true,
        RTN_UNICAST => is_connected(body),
        _ => false,
    };
    let network = rtnetlink::attributes(body, ROUTE_HEADER)
        .find_map(|(kind, value)| (kind == RTA_DST).then(|| ipv4(value))?);
    network
        .filter(|_| closed)
        .and_then(|network| cidr(network, prefix))
}

/// Of several hops one without a gateway is enough.
fn is_connected(body: &[u8]) -> bool {
    let is_router = |kind| kind == RTA_GATEWAY || kind == RTA_VIA;
    let mut routed = false;
    for (kind, value) in rtnetlink::attributes(body, ROUTE_HEADER) {
        if kind == RTA_MULTIPATH {
            return rtnetlink::hops(value).any(|hop| {
                !rtnetlink::attributes(hop, rtnetlink::HOP).any(|(kind, _)| is_router(kind))
            });
        }
        routed |= is_router(kind);
    }
    !routed
}

/// An interface's own address and the network around it, which need not have
/// a route.
fn of_address(body: &[u8]) -> Vec<Cidr> {
    let Some(&prefix) = body.get(1) else {
        return Vec::new();
    };
    rtnetlink::attributes(body, ADDRESS_HEADER)
        .filter_map(|(kind, value)| match kind {
            IFA_ADDRESS => cidr(ipv4(value)?, prefix),
            IFA_LOCAL | IFA_BROADCAST => cidr(ipv4(value)?, 32),
            _ => None,
        })
        .collect()
}

fn ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}

/// The network of an address in it.
fn cidr(address: Ipv4Addr, prefix: u8) -> Option<Cidr> {
    if !(SHORTEST..=32).contains(&prefix) {
        return None;
    }
    let prefix = u32::from(prefix);
    let mask = u32::MAX.checked_shl(32 - prefix)?;
    Some((Ipv4Addr::from(u32::from(address) & mask), prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat()
    }

    fn route(prefix: u8, kind: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![2, prefix, 0, 0, 254, 0, 0, kind, 0, 0, 0, 0];
        body.extend(attributes.concat());
        body
    }

    fn to(network: [u8; 4]) -> Vec<u8> {
        attribute(RTA_DST, &network)
    }

    fn by_router() -> Vec<u8> {
        attribute(RTA_GATEWAY, &[192, 0, 2, 1])
    }

    fn hop(attributes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rtnetlink::HOP + attributes.len()).unwrap();
        [&length.to_ne_bytes(), &[0; 6][..], attributes].concat()
    }

    #[test]
    fn a_route_without_a_gateway_is_a_connected_network() {
        let network = (Ipv4Addr::new(192, 0, 2, 0), 24);
        let direct = route(24, RTN_UNICAST, &[to([192, 0, 2, 0])]);
        assert_eq!(of_route(&direct), Some(network));
        let routed = route(24, RTN_UNICAST, &[to([192, 0, 2, 0]), by_router()]);
        assert_eq!(of_route(&routed), None);
        let by_ipv6 = attribute(RTA_VIA, &[10, 0, 0xfe, 0x80]);
        let routed = route(24, RTN_UNICAST, &[to([192, 0, 2, 0]), by_ipv6]);
        assert_eq!(of_route(&routed), None);
    }

    #[test]
    fn of_several_hops_one_without_a_gateway_is_enough() {
        let both = [hop(&by_router()), hop(&[])].concat();
        let both = attribute(RTA_MULTIPATH, &both);
        let mixed = route(24, RTN_UNICAST, &[to([192, 0, 2, 0]), both]);
        assert!(of_route(&mixed).is_some());
        let routed = attribute(
            RTA_MULTIPATH,
            &[hop(&by_router()), hop(&by_router())].concat(),
        );
        let routed = route(24, RTN_UNICAST, &[to([192, 0, 2, 0]), routed]);
        assert_eq!(of_route(&routed), None);
    }

    #[test]
    fn own_addresses_are_closed_whatever_their_route() {
        let local = route(32, RTN_LOCAL, &[to([81, 2, 3, 4])]);
        assert_eq!(of_route(&local), Some((Ipv4Addr::new(81, 2, 3, 4), 32)));
        let mut body = vec![2, 20, 0, 0, 1, 0, 0, 0];
        body.extend(attribute(IFA_ADDRESS, &[81, 2, 19, 4]));
        body.extend(attribute(IFA_LOCAL, &[81, 2, 19, 4]));
        assert_eq!(
            of_address(&body),
            [
                (Ipv4Addr::new(81, 2, 16, 0), 20),
                (Ipv4Addr::new(81, 2, 19, 4), 32)
            ]
        );
    }

    #[test]
    fn a_way_to_the_internet_is_no_connected_network() {
        assert_eq!(of_route(&route(0, RTN_UNICAST, &[])), None);
        assert_eq!(
            of_route(&route(1, RTN_UNICAST, &[to([128, 0, 0, 0])])),
            None
        );
        // A transparent proxy's table.
        assert_eq!(of_route(&route(0, RTN_LOCAL, &[])), None);
    }

    #[test]
    fn a_body_that_was_cut_short_is_no_network() {
        let whole = route(24, RTN_UNICAST, &[to([192, 0, 2, 0])]);
        for length in 0..whole.len() {
            assert_eq!(of_route(&whole[..length]), None);
        }
    }
}
