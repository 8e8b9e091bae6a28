//! Address translation: new headers, checksum differences, and the choice of a port to masquerade with.

use seaway_ebpf_abi::FlowKey;

use crate::checksum::{add, difference, update};

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
        addresses: add(difference(from.src, to.src), difference(from.dst, to.dst)),
        ports: add(
            difference(from.sport as u32, to.sport as u32),
            difference(from.dport as u32, to.dport as u32),
        ),
    }
}

/// Bytes 8 to 20 of an IPv4 header (TTL, protocol, checksum, source, destination) with new addresses and, for a packet
/// that is forwarded, one hop less.
#[inline(always)]
#[must_use]
pub const fn ipv4_mutable(old: [u8; 12], to: &FlowKey, forwarded: bool) -> [u8; 12] {
    let ttl = if forwarded {
        old[0].saturating_sub(1)
    } else {
        old[0]
    };
    let src = u32::from_ne_bytes([old[4], old[5], old[6], old[7]]);
    let dst = u32::from_ne_bytes([old[8], old[9], old[10], old[11]]);
    let hop = difference(
        u16::from_ne_bytes([old[0], old[1]]) as u32,
        u16::from_ne_bytes([ttl, old[1]]) as u32,
    );
    let changed = add(add(difference(src, to.src), difference(dst, to.dst)), hop);
    let check = update(u16::from_ne_bytes([old[2], old[3]]), changed).to_ne_bytes();
    let (s, d) = (to.src.to_ne_bytes(), to.dst.to_ne_bytes());
    [
        ttl, old[1], check[0], check[1], s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3],
    ]
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
