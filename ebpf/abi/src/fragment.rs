//! Fragments of translated packets: only the first has ports, and the others follow it.

use crate::Addr;

/// What the fragments of one packet have in common. Without a source ([`Addr::ANY_V4`]): those that the stack makes of a packet, as
/// they leave.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FragmentKey {
    pub src: Addr,
    pub dst: Addr,
    /// As it stands in the packet; of IPv4 the lower half.
    pub id: u32,
    /// IANA number.
    pub protocol: u8,
    pub pad: [u8; 3],
}

/// The ports of the first fragment. Of a packet that the stack cuts, as they leave: of the source port the new one.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FragmentValue {
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub seen: u64,
    pub sport: u16,
    pub dport: u16,
    /// Of a packet that the stack cuts: the IPv4 address that its fragments get as their source when they leave; else 0.
    pub source: u32,
}

/// How long the others may take: as long as the kernel waits for them (`net.ipv4.ipfrag_time`).
pub const FRAGMENT_TIMEOUT_NS: u64 = 30_000_000_000;
