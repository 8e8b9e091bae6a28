//! Flows that the tc programs translate packet by packet: two entries each, one truth.
//!
//! The **forward** entry (client → frontend) holds the state and the time of the last packet of either direction; the
//! **reverse** entry (backend → translated client) is found by replies and leads back to the forward entry.

use crate::{Addr, FrontendKey};

/// A packet's addresses, as it arrives.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FlowKey {
    pub src: Addr,
    pub dst: Addr,
    pub sport: u16,
    pub dport: u16,
    /// IANA number.
    pub protocol: u8,
    pub pad: [u8; 3],
}

impl FlowKey {
    /// From words as they lie in memory: source, destination, ports, protocol. A key that is written in whole words is
    /// hashed faster, because it is read in whole words.
    #[expect(unsafe_code, reason = "one layout of integers taken for another one")]
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u32; 10]) -> Self {
        // SAFETY: of the same size, without padding, and every byte pattern is a value.
        unsafe { core::mem::transmute(words) }
    }

    /// The same flow seen from the other end.
    #[inline(always)]
    #[must_use]
    pub const fn swapped(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            protocol: self.protocol,
            pad: [0; 3],
        }
    }

    /// Turns it into the same flow seen from the other end.
    #[inline(always)]
    pub const fn swap(&mut self) {
        core::mem::swap(&mut self.src, &mut self.dst);
        core::mem::swap(&mut self.sport, &mut self.dport);
    }

    /// Equality without a loop, as [`Addr::same`].
    #[inline(always)]
    #[must_use]
    pub const fn same(&self, other: &Self) -> bool {
        self.src.same(&other.src)
            && self.dst.same(&other.dst)
            && self.sport == other.sport
            && self.dport == other.dport
            && self.protocol == other.protocol
    }
}

/// What becomes of a packet with that key.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FlowValue {
    /// `CLOCK_MONOTONIC` in nanoseconds; written at most once in [`TOUCH_INTERVAL_NS`].
    pub last_seen: u64,
    /// The addresses after translation.
    pub src: Addr,
    pub dst: Addr,
    pub sport: u16,
    pub dport: u16,
    /// Reverse: the link where the client's packets arrive and replies leave. Forward: 0.
    pub ifindex: u32,
    /// Forward: the set that the backend was taken from.
    pub set: u32,
    /// Forward: the `STATE_*` bits of both directions.
    pub state: u8,
    /// `FLOW_*` bits.
    pub flags: u8,
    pub pad: [u8; 2],
    pub hop: Hop,
}

/// Where the packets of an entry go from here: what a look at Services, routes and neighbours found. It holds until
/// the epoch changes, and for [`TOUCH_INTERVAL_NS`] at most.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hop {
    /// The epoch (map `EPOCH`) of that look; 0: there was none yet.
    pub epoch: u32,
    /// The link to send out of; 0: up the node's stack.
    pub ifindex: u32,
    /// The Ethernet header's addresses, as they stand in a packet; all zero: the kernel has to find the neighbour.
    pub to: [u16; 3],
    pub from: [u16; 3],
    /// The largest packet that the link takes, without its Ethernet header.
    pub mtu: u16,
    pub pad: u16,
}

impl Hop {
    /// Whether the Ethernet header is known.
    #[inline(always)]
    #[must_use]
    pub const fn has_neighbour(&self) -> bool {
        self.to[0] | self.to[1] | self.to[2] != 0
    }
}

impl FlowValue {
    /// The packet's addresses after translation.
    #[inline(always)]
    #[must_use]
    pub const fn translated(&self, protocol: u8) -> FlowKey {
        FlowKey {
            src: self.src,
            dst: self.dst,
            sport: self.sport,
            dport: self.dport,
            protocol,
            pad: [0; 3],
        }
    }

    /// The frontend that the client knocked at, as it stands in the map, of a forward entry with that key.
    #[inline(always)]
    #[must_use]
    pub const fn frontend(&self, key: &FlowKey) -> FrontendKey {
        FrontendKey {
            addr: if self.flags & FLOW_NODE_PORT != 0 {
                key.dst.any()
            } else {
                key.dst
            },
            port: key.dport,
            protocol: key.protocol,
            pad: 0,
        }
    }

    /// Whether this is the entry that replies find.
    #[inline(always)]
    #[must_use]
    pub const fn is_reverse(&self) -> bool {
        self.flags & FLOW_REVERSE != 0
    }
}

/// How stale `last_seen` may get before a packet writes it.
pub const TOUCH_INTERVAL_NS: u64 = 1_000_000_000;

/// The entry that replies find.
pub const FLOW_REVERSE: u8 = 1;
/// The backend is the node itself: forward packets go up the stack, replies are translated as they leave.
pub const FLOW_NODE: u8 = 2;
/// The client knocked at an address of the node: the frontend stands in the map without one.
pub const FLOW_NODE_PORT: u8 = 4;
/// The client is outside: the far set counts.
pub const FLOW_FAR: u8 = 8;

/// The backend answers the client itself, from another node: the client's packets go there as they are, through the overlay.
/// A forward entry without a reverse one; what it translates to says only who the backend is.
pub const FLOW_SENT_ON: u8 = 16;
/// The client's packets come from the node where they entered, through the overlay; replies go to the client by this node's routes.
pub const FLOW_DIRECT: u8 = 32;
/// Connection tracking has this flow: its packets go up the stack as they are. A forward entry without a reverse one.
pub const FLOW_STACK: u8 = 64;
/// The flow is on its way to connection tracking: the client's packets are dropped for the moment that this takes.
pub const FLOW_HELD: u8 = 128;

/// A SYN of the client (TCP), or any packet of it (UDP).
pub const STATE_OPENED: u8 = 1;
/// The backend answered.
pub const STATE_REPLIED: u8 = 2;
/// The client acknowledged the answer (TCP).
pub const STATE_ESTABLISHED: u8 = 4;
/// The client sent its FIN.
pub const STATE_FIN_CLIENT: u8 = 8;
/// The backend sent its FIN.
pub const STATE_FIN_BACKEND: u8 = 16;
/// Either side sent a reset.
pub const STATE_RESET: u8 = 32;
