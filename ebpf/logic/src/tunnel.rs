//! Headers of the tunnel between nodes: VXLAN (RFC 7348) over IPv4, as the kernel's device writes and reads them.

use crate::checksum::fold;
use crate::packet::ETHERNET;

/// Words of 16 bits: IPv4 without options, UDP, VXLAN.
pub const HEADERS4: usize = 10 + 4 + 4;

/// Bytes that the tunnel adds to a frame: these headers, with an Ethernet header in front of them.
pub const ROOM4: usize = ETHERNET + 2 * HEADERS4;

/// A packet of the tunnel. Addresses and ports as they stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer4 {
    pub local: u32,
    pub remote: u32,
    pub from: u16,
    pub to: u16,
    pub vni: u32,
    /// The low bits of the traffic class (RFC 3168).
    pub ecn: u8,
    /// What fragments of one packet have in common.
    pub id: u16,
    /// Nobody may cut it into fragments.
    pub whole: bool,
}

/// The headers in front of a frame, given its length in bytes. The UDP checksum is left out, as the frame has its own.
#[inline(always)]
#[must_use]
pub const fn headers4(outer: &Outer4, frame: u16) -> [u16; HEADERS4] {
    let total = frame + 2 * HEADERS4 as u16;
    let [a, b] = halves(outer.local);
    let [c, d] = halves(outer.remote);
    let version = (0x4500 | outer.ecn as u16).to_be();
    let cut = if outer.whole { 0x4000_u16.to_be() } else { 0 };
    let hops = 0x4011_u16.to_be();
    let length = total.to_be();
    let sum = version as u32
        + length as u32
        + outer.id as u32
        + cut as u32
        + hops as u32
        + a as u32
        + b as u32
        + c as u32
        + d as u32;
    let vni = outer.vni << 8;
    [
        version,
        length,
        outer.id,
        cut,
        hops,
        !fold(sum),
        a,
        b,
        c,
        d,
        outer.from,
        outer.to,
        (total - 20).to_be(),
        0,
        FLAGS,
        0,
        ((vni >> 16) as u16).to_be(),
        (vni as u16).to_be(),
    ]
}

/// A VNI follows, and nothing else is said.
const FLAGS: u16 = 0x0800_u16.to_be();

/// The port that a flow is sent from. The first two bits are those of the ports that senders take (RFC 7348, 5).
#[inline(always)]
#[must_use]
pub const fn source_port(hash: u32) -> u16 {
    (0xc000 | (hash ^ hash >> 16) as u16 & 0x3fff).to_be()
}

/// What the outer packet tells of congestion, given what the inner one does: not that there was any, but that it may
/// (`INET_ECN_encapsulate`).
#[inline(always)]
#[must_use]
pub const fn outer_ecn(inner: u8) -> u8 {
    match inner & CONGESTION {
        CONGESTION => 2,
        other => other,
    }
}

const CONGESTION: u8 = 3;

/// A packet of the tunnel as it arrives, in words of 32 bits from its IP header on.
pub type Arrived4 = [u32; HEADERS4 / 2];

/// Whether it is a whole one that tells of nothing but a frame in a network: no options, no congestion on the way (of which
/// the inner packet would have to be told), no checksum, no other flags.
#[inline(always)]
#[must_use]
pub const fn is_plain4(packet: &Arrived4) -> bool {
    let [version, class, ..] = packet[0].to_ne_bytes();
    let [_, _, cut_high, cut_low] = packet[1].to_ne_bytes();
    let [_, protocol, ..] = packet[2].to_ne_bytes();
    let [_, _, check_high, check_low] = packet[6].to_ne_bytes();
    let [.., rest] = packet[8].to_ne_bytes();
    packet[7] == PLAIN
        && protocol == seaway_ebpf_abi::UDP
        && version == 0x45
        && class & CONGESTION != CONGESTION
        && (cut_high & 0x3f) | cut_low | check_high | check_low | rest == 0
}

/// The first word of a VXLAN header.
const PLAIN: u32 = 0x0800_0000_u32.to_be();

/// What such a packet was sent with.
#[inline(always)]
#[must_use]
pub const fn read4(packet: &Arrived4) -> Outer4 {
    let [a, b, c, d] = packet[5].to_ne_bytes();
    let [_, ecn, ..] = packet[0].to_ne_bytes();
    let [id_high, id_low, cut, _] = packet[1].to_ne_bytes();
    Outer4 {
        local: packet[3],
        remote: packet[4],
        from: u16::from_ne_bytes([a, b]),
        to: u16::from_ne_bytes([c, d]),
        vni: u32::from_be(packet[8]) >> 8,
        ecn: ecn & CONGESTION,
        id: u16::from_ne_bytes([id_high, id_low]),
        whole: cut & 0x40 != 0,
    }
}

#[inline(always)]
const fn halves(word: u32) -> [u16; 2] {
    let [a, b, c, d] = word.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}
