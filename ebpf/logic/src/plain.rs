//! Plain packets: TCP or UDP, whole, without options or extension headers. Nearly all packets are, and all that is asked
//! of them stands at fixed offsets, so that they are read and written in place.
//!
//! Their headers are seen as 16-bit words as they stand in the packet, because no more alignment than that can be relied
//! on. `N`, how many there are up to the end of a UDP header, tells the IP version: [`UDP4`] or [`UDP6`].

use seaway_ebpf_abi::{Addr, FlowKey, TCP, UDP};

use crate::checksum::{add, address_difference, difference, fold, update};
use crate::packet::{ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6};

/// Words of an Ethernet header, and of the IP headers.
const IP: usize = ETHERNET / 2;
const IPV4: usize = 10;
const IPV6: usize = 20;
/// Words of a UDP packet's headers.
pub const UDP4: usize = IP + IPV4 + 4;
pub const UDP6: usize = IP + IPV6 + 4;
/// Words of a TCP packet's headers.
pub const TCP4: usize = UDP4 + 6;
pub const TCP6: usize = UDP6 + 6;

/// Version 4, five words of 32 bits.
const NO_OPTIONS: u8 = 0x45;
/// More fragments, or not the first one.
const FRAGMENT: u16 = 0x3fff_u16.to_be();

/// Where the ports are.
#[inline(always)]
#[must_use]
pub const fn transport(words: usize) -> usize {
    words - 4
}

#[inline(always)]
const fn join(a: u16, b: u16) -> u32 {
    // Put together byte by byte it would stay so in the program.
    if cfg!(target_endian = "little") {
        a as u32 | (b as u32) << 16
    } else {
        (a as u32) << 16 | b as u32
    }
}

#[inline(always)]
const fn split(word: u32) -> [u16; 2] {
    if cfg!(target_endian = "little") {
        [word as u16, (word >> 16) as u16]
    } else {
        [(word >> 16) as u16, word as u16]
    }
}

/// The protocol behind the IP header, if the packet is a plain one of this IP version.
#[inline(always)]
#[must_use]
pub const fn protocol<const N: usize>(head: &[u16; N]) -> Option<u8> {
    let kind = head[IP - 1].to_ne_bytes();
    let [first, _] = head[IP].to_ne_bytes();
    let (plain, protocol) = if N == UDP4 {
        let [_, protocol] = head[IP + 4].to_ne_bytes();
        let plain = kind[0] == ETHERTYPE_IPV4[0]
            && kind[1] == ETHERTYPE_IPV4[1]
            && first == NO_OPTIONS
            && head[IP + 3] & FRAGMENT == 0;
        (plain, protocol)
    } else {
        let [protocol, _] = head[IP + 3].to_ne_bytes();
        let plain = kind[0] == ETHERTYPE_IPV6[0] && kind[1] == ETHERTYPE_IPV6[1] && first >> 4 == 6;
        (plain, protocol)
    };
    if plain && (protocol == TCP || protocol == UDP) {
        Some(protocol)
    } else {
        None
    }
}

/// The addresses of a plain packet.
#[inline(always)]
#[must_use]
pub const fn key<const N: usize>(head: &[u16; N], protocol: u8) -> FlowKey {
    let h = head;
    let (src, dst) = if N == UDP4 {
        const AT: usize = IP + 6;
        let src = Addr::v4(join(h[AT], h[AT + 1]));
        (src, Addr::v4(join(h[AT + 2], h[AT + 3])))
    } else {
        (address(h, IP + 4), address(h, IP + 12))
    };
    let ([a, b, c, d], [e, f, g, h]) = (src.words, dst.words);
    let at = transport(N);
    let ports = join(head[at], head[at + 1]);
    let protocol = u32::from_ne_bytes([protocol, 0, 0, 0]);
    FlowKey::from_words([a, b, c, d, e, f, g, h, ports, protocol])
}

#[inline(always)]
const fn address<const N: usize>(h: &[u16; N], at: usize) -> Addr {
    Addr {
        words: [
            join(h[at], h[at + 1]),
            join(h[at + 2], h[at + 3]),
            join(h[at + 4], h[at + 5]),
            join(h[at + 6], h[at + 7]),
        ],
    }
}

/// The word of the hops, with another byte beside them; and where the hops are in it.
const HOPS4: usize = IP + 4;
const HOPS6: usize = IP + 3;

/// Remaining hops.
#[inline(always)]
#[must_use]
pub const fn hops<const N: usize>(head: &[u16; N]) -> u8 {
    if N == UDP4 {
        head[HOPS4].to_ne_bytes()[0]
    } else {
        head[HOPS6].to_ne_bytes()[1]
    }
}

/// The word of the hops of a packet that is forwarded, which has one left at least, or not.
#[inline(always)]
const fn hops_after<const N: usize>(head: &[u16; N], forwarded: bool) -> u16 {
    let one = if N == UDP4 { [1, 0] } else { [0, 1] };
    let word = if N == UDP4 { head[HOPS4] } else { head[HOPS6] };
    if forwarded {
        word.wrapping_sub(u16::from_ne_bytes(one))
    } else {
        word
    }
}

/// What a translation adds to the sums of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// To that of the pseudo header.
    pub addresses: u32,
    pub ports: u32,
    /// To that of the IP header besides the addresses: one hop less.
    pub hop: u32,
}

/// Compares the addresses before and after.
#[inline(always)]
#[must_use]
pub const fn change<const N: usize>(
    head: &[u16; N],
    from: &FlowKey,
    to: &FlowKey,
    forwarded: bool,
) -> Change {
    let addresses = if N == UDP4 {
        add(
            difference(from.src.words[3], to.src.words[3]),
            difference(from.dst.words[3], to.dst.words[3]),
        )
    } else {
        add(
            address_difference(&from.src, &to.src),
            address_difference(&from.dst, &to.dst),
        )
    };
    let word = if N == UDP4 { head[HOPS4] } else { head[HOPS6] };
    Change {
        addresses,
        ports: difference(join(from.sport, from.dport), join(to.sport, to.dport)),
        hop: difference(word as u32, hops_after(head, forwarded) as u32),
    }
}

/// 0 and 0xffff are the same in one's complement.
#[inline(always)]
const fn normal(sum: u16) -> u16 {
    if sum == 0 { 0xffff } else { sum }
}

impl Change {
    /// Whether the addresses add up to something else. Without that, [`Change::mend`] cannot tell.
    #[inline(always)]
    #[must_use]
    pub const fn tells(&self) -> bool {
        normal(fold(self.addresses)) != 0xffff
    }

    /// The checksum of TCP or UDP, where the kernel has put in `after` for `before` by [`Change::addresses`]. Of a packet
    /// that is to be summed up when it is sent, that was all: its checksum is still the sum of the pseudo header, and not
    /// a complement. It tells itself by which way the field went.
    #[inline(always)]
    #[must_use]
    pub const fn mend(&self, before: u16, after: u16, protocol: u8) -> u16 {
        let partial = fold(add(before as u32, self.addresses));
        if normal(after) == normal(partial) {
            return after;
        }
        spelled(update(after, self.ports), protocol)
    }

    /// The same where the checksum is known to be one of the packet, and nobody has put in anything yet.
    #[inline(always)]
    #[must_use]
    pub const fn mend_whole(&self, check: u16, protocol: u8) -> u16 {
        if protocol == UDP && check == 0 {
            // There is none.
            return 0;
        }
        let check = update(check, add(self.addresses, self.ports));
        spelled(check, protocol)
    }
}

/// A sum as it is written: a UDP checksum of zero would mean that there is none.
#[inline(always)]
const fn spelled(check: u16, protocol: u8) -> u16 {
    if protocol == UDP {
        normal(check)
    } else {
        check
    }
}

/// Writes the new addresses, ports and hops into the packet's headers; all but the checksum of TCP or UDP.
#[inline(always)]
pub const fn write<const N: usize>(
    head: &mut [u16; N],
    to: &FlowKey,
    change: &Change,
    forwarded: bool,
) {
    let hops = hops_after(head, forwarded);
    if N == UDP4 {
        const AT: usize = IP + 6;
        head[HOPS4] = hops;
        head[IP + 5] = update(head[IP + 5], add(change.addresses, change.hop));
        [head[AT], head[AT + 1]] = split(to.src.words[3]);
        [head[AT + 2], head[AT + 3]] = split(to.dst.words[3]);
    } else {
        head[HOPS6] = hops;
        put(head, IP + 4, &to.src);
        put(head, IP + 12, &to.dst);
    }
    let at = transport(N);
    head[at] = to.sport;
    head[at + 1] = to.dport;
}

#[inline(always)]
const fn put<const N: usize>(head: &mut [u16; N], at: usize, address: &Addr) {
    let [a, b, c, d] = address.words;
    [head[at], head[at + 1]] = split(a);
    [head[at + 2], head[at + 3]] = split(b);
    [head[at + 4], head[at + 5]] = split(c);
    [head[at + 6], head[at + 7]] = split(d);
}
