//! Fragments of translated packets: only the first has ports, and the others follow it.

use crate::Addr;

/// What the fragments of one packet have in common.
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

/// The ports of the first fragment.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FragmentValue {
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub seen: u64,
    pub sport: u16,
    pub dport: u16,
    pub pad: u32,
}

/// How long the others may take: as long as the kernel waits for them (`net.ipv4.ipfrag_time`).
pub const FRAGMENT_TIMEOUT_NS: u64 = 30_000_000_000;
