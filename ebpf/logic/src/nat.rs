//! Address translation: new headers, checksum differences, and the choice of a port to masquerade with.

use seaway_ebpf_abi::FlowKey;

use crate::checksum::{add, address_difference, difference, update};

/// Offset in an IPv4 header of the part that a translation changes: TTL to destination.
pub const IPV4_MUTABLE: usize = 8;
/// Offset of the hop limit in an IPv6 header.
pub const IPV6_HOPS: usize = 7;
/// Offset of the addresses in an IPv6 header.
pub const IPV6_ADDRESSES: usize = 8;

/// What a translation does to a TCP or UDP checksum. The two parts are apart because the addresses belong to the
/// pseudo header, which a network card that computes the checksum later has already been given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Differences {
    pub addresses: u32,
    pub ports: u32,
}

/// Compares the addresses before and after.
#[inline(always)]
#[must_use]
pub const fn differences(from: &FlowKey, to: &FlowKey) -> Differences {
    Differences {
        addresses: add(
            address_difference(&from.src, &to.src),
            address_difference(&from.dst, &to.dst),
        ),
        ports: add(
            difference(from.sport as u32, to.sport as u32),
            difference(from.dport as u32, to.dport as u32),
        ),
    }
}

/// Hops that are left after a packet was forwarded, or as they were.
#[inline(always)]
const fn hops_after(hops: u8, forwarded: bool) -> u8 {
    if forwarded {
        hops.saturating_sub(1)
    } else {
        hops
    }
}

/// Bytes 8 to 20 of an IPv4 header (TTL, protocol, checksum, source, destination) with new addresses and, for a packet
/// that is forwarded, one hop less.
#[inline(always)]
#[must_use]
pub const fn ipv4_mutable(
    (hops, protocol, check): (u8, u8, u16),
    from: &FlowKey,
    to: &FlowKey,
    forwarded: bool,
) -> [u8; 12] {
    let ttl = hops_after(hops, forwarded);
    let hop = difference(
        u16::from_ne_bytes([hops, protocol]) as u32,
        u16::from_ne_bytes([ttl, protocol]) as u32,
    );
    let changed = add(
        add(
            difference(from.src.words[3], to.src.words[3]),
            difference(from.dst.words[3], to.dst.words[3]),
        ),
        hop,
    );
    let c = update(check, changed).to_ne_bytes();
    let (s, d) = (to.src.words[3].to_ne_bytes(), to.dst.words[3].to_ne_bytes());
    [
        ttl, protocol, c[0], c[1], s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3],
    ]
}

/// The hop limit of an IPv6 header that is forwarded, or not.
#[inline(always)]
#[must_use]
pub const fn ipv6_hops(hops: u8, forwarded: bool) -> u8 {
    hops_after(hops, forwarded)
}

/// Where an ICMP error goes once translated: to the other end of the flow, and from there if its sender is that end
/// rather than a router on the way. `outer` has the addresses of the message itself.
#[inline(always)]
pub const fn error_addresses(outer: &mut FlowKey, from: &FlowKey, to: &FlowKey) {
    if outer.src.same(&from.src) {
        outer.src = to.src;
    }
    outer.dst = to.dst;
}

/// How often a free port is looked for before the packet is dropped.
pub const PORT_ATTEMPTS: u32 = 24;

/// The source port to try in an attempt (network order).
///
/// A client that keeps its address also keeps its port in the first attempt. A masqueraded one gets a random port of
/// the range at once: its own may be in use by the node itself. Each attempt draws anew (`random`), because clashes
/// come in runs when ports are given in order.
#[inline(always)]
#[must_use]
pub const fn source_port(
    attempt: u32,
    original: u16,
    masquerade: bool,
    (min, max): (u16, u16),
    random: u32,
) -> u16 {
    if attempt == 0 && !masquerade || max < min {
        return original;
    }
    let size = (max - min) as u64 + 1;
    let offset = (random as u64 * size) >> 32;
    (min + offset as u16).to_be()
}
