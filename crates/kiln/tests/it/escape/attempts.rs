//! What is tried from inside.

use std::fmt;

/// How an attempt must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The world answers and has seen it.
    Reached,
    /// It is found in the guest: what finds nothing proves nothing.
    Found,
    /// No answer, and nobody has seen it.
    Closed,
    /// It may reach the world, but only as the host's own ordinary packet.
    Disguised,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reached => "reached",
            Self::Found => "found",
            Self::Closed => "closed",
            Self::Disguised => "harmless",
        })
    }
}

/// One attempt.
#[derive(Debug)]
pub struct Attempt {
    pub name: &'static str,
    /// Kind and words, as escape.pl reads them.
    pub how: &'static str,
    pub expected: Expected,
}

const fn reached(name: &'static str, how: &'static str) -> Attempt {
    let expected = Expected::Reached;
    Attempt {
        name,
        how,
        expected,
    }
}

const fn found(name: &'static str, how: &'static str) -> Attempt {
    let expected = Expected::Found;
    Attempt {
        name,
        how,
        expected,
    }
}

const fn closed(name: &'static str, how: &'static str) -> Attempt {
    let expected = Expected::Closed;
    Attempt {
        name,
        how,
        expected,
    }
}

const fn disguised(name: &'static str, how: &'static str) -> Attempt {
    let expected = Expected::Disguised;
    Attempt {
        name,
        how,
        expected,
    }
}

/// All of them; who is where is in internet.py.
pub const ATTEMPTS: &[Attempt] = &[
    reached("the_world_by_tcp", "tcp 93.10.20.30"),
    reached("the_world_by_udp", "udp 93.10.20.30"),
    reached("the_world_by_name", "name world.test"),
    reached("the_world_by_raw_frames", "frame4 10.0.2.15 93.10.20.30"),
    // The host.
    closed(
        "every_port_of_the_host_at_the_gateway",
        "ports 10.0.2.2 OPEN-PORTS",
    ),
    closed(
        "every_port_of_the_host_at_the_uplink",
        "ports 10.0.3.2 OPEN-PORTS",
    ),
    closed("the_hosts_loopback_at_the_gateway_by_udp", "udp 10.0.2.2"),
    closed("the_hosts_loopback_at_the_name_server", "tcp 10.0.2.3"),
    closed(
        "the_hosts_loopback_at_the_uplinks_name_server",
        "tcp 10.0.3.3",
    ),
    closed(
        "the_hosts_loopback_by_frames_to_127",
        "frame4 10.0.2.15 127.0.0.1",
    ),
    closed(
        "the_hosts_loopback_by_frames_from_127",
        "frame4 127.0.0.1 127.0.0.1",
    ),
    closed(
        "the_hosts_resolver_by_frames",
        "frame4 10.0.2.15 127.0.0.53",
    ),
    closed(
        "the_hosts_loopback_by_frames_to_0",
        "frame4 10.0.2.15 0.0.0.0",
    ),
    closed("the_hosts_address_on_the_internet", "tcp 81.2.3.4"),
    closed("the_hosts_address_on_the_internet_by_udp", "udp 81.2.3.4"),
    closed("the_hosts_address_on_its_lan", "tcp 192.168.77.1"),
    closed("the_hosts_second_address_on_its_lan", "tcp 10.20.30.1"),
    // What it is connected to.
    closed("a_neighbour_with_a_global_address", "tcp 81.2.3.1"),
    closed("a_network_of_another_routing_table", "tcp 45.6.7.8"),
    closed("the_lan", "tcp 192.168.77.2"),
    closed("the_lan_by_udp", "udp 192.168.77.2"),
    closed("the_lan_by_ping", "ping 192.168.77.2"),
    closed("the_lan_by_frames", "frame4 10.0.2.15 10.20.30.2"),
    closed("the_metadata_service", "tcp 169.254.169.254"),
    closed(
        "the_metadata_service_by_frames",
        "frame4 10.0.2.15 169.254.169.254",
    ),
    // What is not global, wherever the host's routes lead.
    closed("10_0_0_0_8", "tcp 10.99.0.1"),
    closed("172_16_0_0_12", "tcp 172.16.5.5"),
    closed("192_168_0_0_16", "tcp 192.168.5.5"),
    closed("100_64_0_0_10", "tcp 100.64.5.5"),
    closed("169_254_0_0_16", "tcp 169.254.5.5"),
    closed("198_18_0_0_15", "tcp 198.18.5.5"),
    closed("192_0_0_0_24", "tcp 192.0.0.9"),
    closed("192_0_2_0_24", "tcp 192.0.2.55"),
    closed("198_51_100_0_24", "tcp 198.51.100.5"),
    closed("203_0_113_0_24", "tcp 203.0.113.5"),
    closed("192_88_99_0_24", "tcp 192.88.99.1"),
    closed("240_0_0_0_4_by_frames", "frame4 10.0.2.15 240.0.0.5"),
    closed("100_64_0_0_10_by_udp", "udp 100.64.5.5"),
    // To many.
    closed("the_limited_broadcast", "udp 255.255.255.255"),
    closed("the_lans_broadcast", "udp 192.168.77.255"),
    closed("the_uplinks_broadcast", "udp 10.0.3.255"),
    closed("multicast_on_the_link", "udp 224.0.0.1"),
    closed("multicast_of_names", "udp 224.0.0.251"),
    closed("multicast_of_an_organisation", "udp 239.1.2.3"),
    // IPv6, which no guest has.
    closed("ipv6_world", "frame6 fec0::15 2a00:aa:bb::30"),
    closed("ipv6_hosts_loopback", "frame6 fec0::15 ::1"),
    closed("ipv6_hosts_address", "frame6 fec0::15 2a00:11:22:33::4"),
    closed("ipv6_fc00_7", "frame6 fec0::15 fc00::5"),
    closed("ipv6_lan", "frame6 fec0::15 fd00:77::2"),
    closed("ipv6_fe80_10", "frame6 fe80::15 fe80::2"),
    closed("ipv6_gateway", "frame6 fec0::15 fec0::2"),
    closed("ipv6_mapped", "frame6 ::ffff:10.0.2.15 ::ffff:10.20.30.2"),
    closed("ipv6_6to4", "frame6 2002:a00:20f::1 2002:a14:1e02::1"),
    closed("ipv6_nat64", "frame6 fec0::15 64:ff9b::a14:1e02"),
    closed("ipv6_local_nat64", "frame6 fec0::15 64:ff9b:1::a14:1e02"),
    closed("ipv6_teredo", "frame6 fec0::15 2001:0:5102:304::1"),
    closed("ipv6_documentation", "frame6 fec0::15 2001:db8::5"),
    closed("ipv6_multicast", "frame6 fe80::15 ff02::1"),
    closed("ipv6_in_ipv4", "tunnel 41 93.10.20.30 fec0::15 fd00:77::2"),
    closed(
        "ipv6_in_ipv4_to_a_6to4_relay",
        "tunnel 41 192.88.99.1 2002:a00:20f::1 2002:a14:1e02::1",
    ),
    // Another guest.
    closed("another_guest_at_its_uplink", "tcp 10.0.3.100"),
    closed("another_guest_by_frames", "frame4 10.0.2.16 10.0.2.15"),
    closed("another_guest_in_the_same_network", "tcp 10.0.2.16"),
    closed("another_guests_ssh", "frame4 10.0.3.99 10.0.3.100"),
    // Names that lead inwards.
    closed("a_name_of_the_loopback", "name loopback.rebind.test"),
    closed("a_name_of_the_gateway", "name gateway.rebind.test"),
    closed("a_name_of_the_lan", "name lan.rebind.test"),
    closed(
        "a_name_of_the_metadata_service",
        "name metadata.rebind.test",
    ),
    closed("a_name_of_the_host", "name host.rebind.test"),
    closed("a_name_of_a_mapped_address", "name mapped.rebind.test"),
    closed("a_name_of_the_hosts_ipv6", "name host6.rebind.test"),
    // Forged sources.
    disguised("forged_source_of_the_lan", "frame4 10.20.30.77 93.10.20.30"),
    disguised("forged_source_of_the_host", "frame4 81.2.3.4 93.10.20.30"),
    disguised(
        "forged_source_of_somebody",
        "frame4 93.10.20.99 93.10.20.30",
    ),
    closed("forged_source_to_the_lan", "frame4 10.20.30.77 10.20.30.2"),
    closed(
        "forged_source_of_the_lan_to_the_host",
        "frame4 192.168.77.9 192.168.77.1",
    ),
    // Other frames.
    closed("a_frame_of_an_unknown_kind", "ether 88b5"),
    closed("a_frame_of_arp", "ether 0806"),
    closed("a_frame_of_lldp", "ether 88cc"),
    closed("a_frame_of_another_vlan", "vlan 10.0.2.15 10.20.30.2"),
    closed("ip_in_ip", "tunnel 4 93.10.20.30 10.0.2.15 10.20.30.2"),
    closed("gre", "tunnel 47 93.10.20.30 10.0.2.15 10.20.30.2"),
    // What others know.
    found("its_own_secret", "find kiln-ow[n]-secret-19d0"),
    closed("a_neighbours_secret", "find kiln-neighbour[s]-secret-5b1f"),
    closed(
        "the_hosts_environment",
        "find kiln-hosts-environmen[t]-77ac",
    ),
];
