//! The addresses that the generated objects and packets have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::inputs::Family;

/// Cluster IPs that share their lowest bits, and ones that do not.
pub(super) fn cluster_ips(family: Family) -> Vec<IpAddr> {
    let last = [1_u8, 2, 17, 18, 33, 255];
    let address = |last: u8| match family {
        Family::V4 => IpAddr::from([10, 96, 0, last]),
        Family::V6 => IpAddr::from([0xfd00, 0x10, 0x96, 0, 0, 0, 0, u16::from(last)]),
    };
    last.into_iter().map(address).collect()
}

/// Load balancer and external addresses.
pub(super) fn service_addresses(family: Family) -> Vec<IpAddr> {
    let address = |last: u8| match family {
        Family::V4 => IpAddr::from([203, 0, 113, last]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, u16::from(last)]),
    };
    [1, 2, 17].into_iter().map(address).collect()
}

/// Pods of this node and of another one.
pub(super) fn pods(family: Family) -> Vec<IpAddr> {
    let address = |node: u8, last: u8| match family {
        Family::V4 => IpAddr::from([10, 244, node, last]),
        Family::V6 => IpAddr::from([
            0xfd00,
            0x10,
            0x244,
            u16::from(node),
            0,
            0,
            0,
            u16::from(last),
        ]),
    };
    let all = [(1, 2), (1, 3), (1, 4), (2, 2), (2, 3)];
    all.into_iter().map(|(n, l)| address(n, l)).collect()
}

pub(super) fn outsiders(family: Family) -> Vec<IpAddr> {
    match family {
        Family::V4 => vec![[192, 0, 2, 1].into(), [192, 0, 2, 200].into()],
        Family::V6 => vec![
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xff].into(),
        ],
    }
}

pub(super) fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}
