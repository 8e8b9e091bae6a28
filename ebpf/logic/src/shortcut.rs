//! Slots beside the flow table: where a packet looks, how long a slot holds, and what it says.

use seaway_ebpf_abi::flow::{FLOW_REVERSE, TOUCH_INTERVAL_NS};
use seaway_ebpf_abi::shortcut::{REVISIONS_LEN, SHORTCUT_NEIGHBOUR, SHORTCUT_REVERSE};
use seaway_ebpf_abi::{FlowKey, FlowValue, Shortcut, TCP};

use crate::checksum::{add, fold, pseudo_header};
use crate::plain::{self, Headers, Ipv4, doubles};

/// Odd numbers without a pattern: the golden ratio, and the constants of `xxHash`.
const MIX: [u64; 3] = [
    0x9e37_79b9_7f4a_7c15,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
];

#[inline(always)]
const fn finish(a: u64, b: u64) -> u64 {
    let mixed = a.wrapping_mul(MIX[0]) ^ b.wrapping_mul(MIX[1]);
    (mixed ^ mixed >> 32).wrapping_mul(MIX[2])
}

#[inline(always)]
const fn rest(ports: u32, protocol: u8) -> u64 {
    (protocol as u64) << 32 | ports as u64
}

/// Of IPv4 addresses and ports as they lie in a packet. The kernel's own hash would be a call and three times as long; who
/// finds addresses that meet in one slot makes his own packets slower.
#[inline(always)]
#[must_use]
pub const fn hash4(src: u32, dst: u32, ports: u32, protocol: u8) -> u64 {
    finish((src as u64) << 32 | dst as u64, rest(ports, protocol))
}

/// The same of IPv6 addresses.
#[inline(always)]
#[must_use]
pub const fn hash6(src: [u64; 2], dst: [u64; 2], ports: u32, protocol: u8) -> u64 {
    let high = (src[0] ^ dst[0].rotate_left(32)).wrapping_mul(MIX[2]);
    let low = src[1] ^ dst[1].wrapping_mul(MIX[1]);
    finish(low ^ high, rest(ports, protocol) ^ high >> 32)
}

/// Of a key of the flow table.
#[inline(always)]
#[must_use]
pub const fn hash(key: &FlowKey) -> u64 {
    let ports = plain::ports(key);
    if key.src.is_v4() {
        return hash4(key.src.words[3], key.dst.words[3], ports, key.protocol);
    }
    hash6(doubles(&key.src), doubles(&key.dst), ports, key.protocol)
}

/// Where a CPU with so many slots, a power of two, has the one for a hash. The next one of its pair is the other place.
#[inline(always)]
#[must_use]
pub const fn slot(hash: u64, cpu: u32, slots: u32) -> u32 {
    cpu.wrapping_mul(slots)
        .wrapping_add((hash >> 32) as u32 & slots.wrapping_sub(1))
}

/// Which revision is that of a hash.
#[inline(always)]
#[must_use]
pub const fn revision(hash: u64) -> u32 {
    (hash >> 18) as u32 & (REVISIONS_LEN - 1)
}

/// The revision that begins with the `nth` change of a CPU: none that any CPU made while there is a slot that may have it, which is for
/// 100 ticks at most. (A clock would do, but in a virtual machine it may take longer than all the rest.) There is room for 1024 CPUs and 4096
/// changes in a tick.
#[inline(always)]
#[must_use]
pub const fn new_revision(ticks: u32, cpu: u32, nth: u32) -> u32 {
    (ticks & 0x7f) << 22 | (cpu & 0x3ff) << 12 | nth & 0xfff
}

/// Together what has to be the same as when a slot was filled. Of a revision 29 bits count.
#[inline(always)]
#[must_use]
pub const fn stamp<H: Headers>(epoch: u32, revision: u32, protocol: u8, egress: bool) -> u64 {
    let kind = (protocol == TCP) as u32 | (H::V4 as u32) << 1 | (egress as u32) << 2;
    (epoch as u64) << 32 | (revision << 3 | kind) as u64
}

/// The epoch of a stamp.
#[inline(always)]
#[must_use]
pub const fn epoch(stamp: u64) -> u32 {
    (stamp >> 32) as u32
}

/// Whether a stamp is of packets that leave.
#[inline(always)]
#[must_use]
pub const fn is_egress(stamp: u64) -> bool {
    stamp & 4 != 0
}

/// The longest that a tick takes, in nanoseconds: kernels have 100 to 1000 a second, and do not tell.
const TICK_NS: u64 = 10_000_000;
/// So many ticks are a [`TOUCH_INTERVAL_NS`] at most.
const TICKS: u32 = (TOUCH_INTERVAL_NS / TICK_NS) as u32;

/// When a slot ends that is filled now from an entry of that age: not after the entry would have to be renewed.
#[inline(always)]
#[must_use]
pub const fn until(now: u32, age_ns: u64) -> u32 {
    now.wrapping_add((TOUCH_INTERVAL_NS.saturating_sub(age_ns) / TICK_NS) as u32)
}

/// Whether a slot has not ended by time.
#[inline(always)]
#[must_use]
pub const fn holds(until: u32, now: u32) -> bool {
    until.wrapping_sub(now).wrapping_sub(1) < TICKS
}

/// Fills a slot for the packets of an entry. `false`, and nothing is done, if the translation changes no sum of addresses:
/// then it cannot be told from the packet what its checksum is.
#[inline(always)]
pub fn fill<H: Headers>(
    way: &mut Shortcut,
    key: &FlowKey,
    flow: &FlowValue,
    (stamp, until): (u64, u32),
) -> bool {
    let to = flow.translated(key.protocol);
    let change = plain::change(key, &to);
    if !change.tells() {
        return false;
    }
    let hop = &flow.hop;
    let one_less = if hop.ifindex == 0 { 0 } else { !H::HOP };
    // Whoever looks meanwhile: there is nobody, on this CPU.
    way.stamp = stamp;
    way.until = until;
    way.ports = plain::ports(key);
    way.to_ports = plain::ports(&to);
    way.ifindex = hop.ifindex;
    way.mtu = hop.mtu;
    way.flags = if hop.has_neighbour() {
        SHORTCUT_NEIGHBOUR
    } else {
        0
    } | if flow.flags & FLOW_REVERSE != 0 {
        SHORTCUT_REVERSE
    } else {
        0
    };
    let ([a, b, c], [d, e, f]) = (hop.to, hop.from);
    way.ethernet = [a, b, c, d, e, f];
    way.addresses = fold(change.addresses);
    way.transport = fold(add(change.addresses, change.ports));
    let pseudo = pseudo_header(&key.src, &key.dst, key.protocol, 0);
    if H::V4 {
        way.header = fold(add(change.addresses, one_less as u32));
        // Its length counts the header, too.
        let header = !(Ipv4::IP as u16).to_be();
        way.pseudo = fold(add(pseudo, header as u32));
        way.src = key.src.words[3];
        way.dst = key.dst.words[3];
        way.to_src = to.src.words[3];
        way.to_dst = to.dst.words[3];
    } else {
        way.header = one_less;
        way.pseudo = fold(pseudo);
        way.src6 = doubles(&key.src);
        way.dst6 = doubles(&key.dst);
        way.to_src6 = doubles(&to.src);
        way.to_dst6 = doubles(&to.dst);
    }
    true
}

/// What the change of a packet adds to the sum of all of it, which a card may have made, once its checksum is mended.
#[inline(always)]
#[must_use]
pub const fn in_all(way: &Shortcut, v4: bool) -> u16 {
    if v4 {
        // The IPv4 header makes up for itself, the checksum of what follows for the addresses as well.
        !way.addresses
    } else {
        way.header
    }
}
