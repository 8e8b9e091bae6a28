//! Plain packets: TCP or UDP, whole, without options or extension headers. Nearly all packets are, and all that is asked
//! of them stands at fixed offsets, so that they are read and written in place.
//!
//! Their headers are seen as words from the IP header up to the end of a UDP header, or as many bytes of a TCP header; as
//! wide as they can be, since each costs an instruction. (Behind an Ethernet header all of them are aligned as the
//! kernel lays packets out.)

use seaway_ebpf_abi::{Addr, FlowKey, Shortcut, TCP, UDP};

use crate::checksum::{address_difference, difference, fold, update};
use crate::packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::shortcut::{hash4, hash6};

/// Version 4, five words of 32 bits.
const NO_OPTIONS: u8 = 0x45;
/// More fragments, or not the first one.
const FRAGMENT: u16 = 0x3fff_u16.to_be();

/// Headers of a plain packet.
pub trait Headers {
    /// As it stands in front of them.
    const ETHERTYPE: u16;
    /// Bytes of the IP header.
    const IP: usize;
    /// One hop in the word that has the hops and another byte.
    const HOP: u16;
    const V4: bool;

    /// The protocol behind the IP header, if the packet is a plain one.
    fn protocol(&self) -> Option<u8>;

    /// Remaining hops.
    fn hops(&self) -> u8;

    /// The length field of the IP header, as it stands there.
    fn length(&self) -> u16;

    /// The addresses as the flow table has them.
    fn key(&self, protocol: u8) -> FlowKey;

    /// The same number as of its key, [`hash`](crate::shortcut::hash).
    fn hash(&self, protocol: u8) -> u64;

    /// Whether these are the addresses that a slot was filled for.
    fn are_of(&self, way: &Shortcut) -> bool;

    /// Writes the new addresses, ports and hops; all but the checksum of TCP or UDP.
    fn write(&mut self, way: &Shortcut);
}

/// Of IPv4.
pub type Ipv4 = [u32; 7];
/// Of IPv6.
pub type Ipv6 = [u64; 6];

#[inline(always)]
const fn halves(word: u32) -> [u16; 2] {
    if cfg!(target_endian = "little") {
        [word as u16, (word >> 16) as u16]
    } else {
        [(word >> 16) as u16, word as u16]
    }
}

#[inline(always)]
const fn whole([a, b]: [u16; 2]) -> u32 {
    if cfg!(target_endian = "little") {
        a as u32 | (b as u32) << 16
    } else {
        (a as u32) << 16 | b as u32
    }
}

#[inline(always)]
const fn halves_of_double(word: u64) -> [u32; 2] {
    if cfg!(target_endian = "little") {
        [word as u32, (word >> 32) as u32]
    } else {
        [(word >> 32) as u32, word as u32]
    }
}

#[inline(always)]
const fn double([a, b]: [u32; 2]) -> u64 {
    if cfg!(target_endian = "little") {
        a as u64 | (b as u64) << 32
    } else {
        (a as u64) << 32 | b as u64
    }
}

/// An address in two words.
#[inline(always)]
#[must_use]
pub const fn doubles(addr: &Addr) -> [u64; 2] {
    let [a, b, c, d] = addr.words;
    [double([a, b]), double([c, d])]
}

#[inline(always)]
const fn address(high: u64, low: u64) -> Addr {
    let ([a, b], [c, d]) = (halves_of_double(high), halves_of_double(low));
    Addr {
        words: [a, b, c, d],
    }
}

/// The ports of a key, as they lie in a packet.
#[inline(always)]
#[must_use]
pub const fn ports(key: &FlowKey) -> u32 {
    whole([key.sport, key.dport])
}

#[inline(always)]
const fn key(src: Addr, dst: Addr, ports: u32, protocol: u8) -> FlowKey {
    let ([a, b, c, d], [e, f, g, h]) = (src.words, dst.words);
    let protocol = u32::from_ne_bytes([protocol, 0, 0, 0]);
    FlowKey::from_words([a, b, c, d, e, f, g, h, ports, protocol])
}

#[inline(always)]
const fn is_carried(protocol: u8) -> bool {
    protocol == TCP || protocol == UDP
}

impl Headers for Ipv4 {
    const ETHERTYPE: u16 = u16::from_ne_bytes(ETHERTYPE_IPV4);
    const IP: usize = 20;
    const HOP: u16 = u16::from_ne_bytes([1, 0]);
    const V4: bool = true;

    #[inline(always)]
    fn protocol(&self) -> Option<u8> {
        let [_, fragment] = halves(self[1]);
        let [_, protocol, ..] = self[2].to_ne_bytes();
        let plain = self[0].to_ne_bytes()[0] == NO_OPTIONS && fragment & FRAGMENT == 0;
        (plain && is_carried(protocol)).then_some(protocol)
    }

    #[inline(always)]
    fn hops(&self) -> u8 {
        self[2].to_ne_bytes()[0]
    }

    #[inline(always)]
    fn length(&self) -> u16 {
        halves(self[0])[1]
    }

    #[inline(always)]
    fn key(&self, protocol: u8) -> FlowKey {
        key(Addr::v4(self[3]), Addr::v4(self[4]), self[5], protocol)
    }

    #[inline(always)]
    fn hash(&self, protocol: u8) -> u64 {
        hash4(self[3], self[4], self[5], protocol)
    }

    #[inline(always)]
    fn are_of(&self, way: &Shortcut) -> bool {
        (self[3] ^ way.src) | (self[4] ^ way.dst) | (self[5] ^ way.ports) == 0
    }

    #[inline(always)]
    fn write(&mut self, way: &Shortcut) {
        let [hops, check] = halves(self[2]);
        let hops = hops.wrapping_sub(if way.ifindex == 0 { 0 } else { Self::HOP });
        self[2] = whole([hops, update(check, way.header as u32)]);
        self[3] = way.to_src;
        self[4] = way.to_dst;
        self[5] = way.to_ports;
    }
}

impl Headers for Ipv6 {
    const ETHERTYPE: u16 = u16::from_ne_bytes(ETHERTYPE_IPV6);
    const IP: usize = 40;
    const HOP: u16 = u16::from_ne_bytes([0, 1]);
    const V4: bool = false;

    #[inline(always)]
    fn protocol(&self) -> Option<u8> {
        let [first, _, _, _, _, _, protocol, _] = self[0].to_ne_bytes();
        (first >> 4 == 6 && is_carried(protocol)).then_some(protocol)
    }

    #[inline(always)]
    fn hops(&self) -> u8 {
        self[0].to_ne_bytes()[7]
    }

    #[inline(always)]
    fn length(&self) -> u16 {
        halves(halves_of_double(self[0])[1])[0]
    }

    #[inline(always)]
    fn key(&self, protocol: u8) -> FlowKey {
        let (src, dst) = (address(self[1], self[2]), address(self[3], self[4]));
        key(src, dst, halves_of_double(self[5])[0], protocol)
    }

    #[inline(always)]
    fn hash(&self, protocol: u8) -> u64 {
        let ports = halves_of_double(self[5])[0];
        hash6([self[1], self[2]], [self[3], self[4]], ports, protocol)
    }

    #[inline(always)]
    fn are_of(&self, way: &Shortcut) -> bool {
        let ports = halves_of_double(self[5])[0] ^ way.ports;
        (self[1] ^ way.src6[0])
            | (self[2] ^ way.src6[1])
            | (self[3] ^ way.dst6[0])
            | (self[4] ^ way.dst6[1])
            | ports as u64
            == 0
    }

    #[inline(always)]
    fn write(&mut self, way: &Shortcut) {
        let hop = if way.ifindex == 0 { 0 } else { Self::HOP };
        self[0] = self[0].wrapping_sub(double([0, whole([0, hop])]));
        [self[1], self[2]] = way.to_src6;
        [self[3], self[4]] = way.to_dst6;
        self[5] = double([way.to_ports, halves_of_double(self[5])[1]]);
    }
}

/// Bytes of a packet with that length field. (Longer ones, of IPv6, have an extension header and are not plain.)
#[inline(always)]
#[must_use]
pub const fn size<H: Headers>(length: u16) -> u32 {
    let length = u16::from_be(length) as u32;
    if H::V4 { length } else { length + H::IP as u32 }
}

/// What a translation adds to the sums of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// To that of the pseudo header.
    pub addresses: u32,
    pub ports: u32,
}

/// Compares the addresses before and after.
#[inline(always)]
#[must_use]
pub const fn change(from: &FlowKey, to: &FlowKey) -> Change {
    let (a, b) = (
        address_difference(&from.src, &to.src),
        address_difference(&from.dst, &to.dst),
    );
    Change {
        addresses: crate::checksum::add(a, b),
        ports: difference(ports(from), ports(to)),
    }
}

/// 0 and 0xffff are the same in one's complement.
#[inline(always)]
const fn normal(sum: u16) -> u16 {
    if sum == 0 { 0xffff } else { sum }
}

impl Change {
    /// Whether the addresses add up to something else. Without that, [`mend`] cannot tell.
    #[inline(always)]
    #[must_use]
    pub const fn tells(&self) -> bool {
        normal(fold(self.addresses)) != 0xffff
    }
}

/// Whether a checksum may be that of the pseudo header alone, for whoever sends the packet to finish. It is, or is a whole one
/// that happens to be the same: then only the kernel knows. `length` is that of the IP header; a packet of more than
/// 64 KiB has none there.
#[inline(always)]
#[must_use]
pub const fn may_be_partial(way: &Shortcut, check: u16, length: u16) -> bool {
    let pseudo = fold(way.pseudo as u32 + length as u32);
    length == 0 || normal(check) == normal(pseudo)
}

/// The checksum of TCP or UDP, where the kernel has put in `after` for `before` by the addresses. Of a packet
/// that is to be summed up when it is sent, that was all: its checksum is still the sum of the pseudo header, and not
/// a complement. It tells itself by which way the field went.
#[inline(always)]
#[must_use]
pub const fn mend(way: &Shortcut, before: u16, after: u16, protocol: u8) -> u16 {
    let partial = fold(before as u32 + way.addresses as u32);
    if normal(after) == normal(partial) {
        return after;
    }
    // What addresses and ports add, less what the addresses do.
    let ports = way.transport as u32 + !way.addresses as u32;
    spelled(update(after, ports), protocol)
}

/// The same where the checksum is known to be one of the packet, and nobody has put in anything yet.
#[inline(always)]
#[must_use]
pub const fn mend_whole(way: &Shortcut, check: u16, protocol: u8) -> u16 {
    if protocol == UDP && check == 0 {
        // There is none.
        return 0;
    }
    spelled(update(check, way.transport as u32), protocol)
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
