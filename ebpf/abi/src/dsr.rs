//! Direct server return: the node where a client's packet enters sends it as it is, inside the overlay, to the node of the
//! backend, which answers the client itself.
//!
//! The packet in the tunnel has the client's source and the frontend as its destination; which backend was chosen stands in
//! the VNI ([`DSR_VNI`]).

use crate::{Addr, Hop};

/// The VNIs of such packets: this bit, and below it a hash of the backend. Ordinary packets of the overlay have a small VNI.
pub const DSR_VNI: u32 = 0x80_0000;
/// What of such a VNI is the hash.
pub const DSR_HASH: u32 = DSR_VNI - 1;

/// Addresses behind a tunnel, in a trie of the longest prefixes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TunnelKey {
    /// Of the address, in bits of 128; host order.
    pub prefix: u32,
    pub addr: Addr,
}

/// The node that these addresses are at, as the kernel's routes have it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TunnelValue {
    /// Its end of the tunnel: where encapsulated packets are sent.
    pub remote: Addr,
    /// The UDP port there; network order.
    pub port: u16,
    /// `TUNNEL_*` bits: whose packets may be sent there as they are.
    pub flags: u16,
}

/// Of flows that have begun.
pub const TUNNEL_BEGUN: u16 = 1;
/// Of flows that begin.
pub const TUNNEL_BEGINNING: u16 = 2;

/// The way to a node's end of the tunnel, as the routing table last gave it: for what is put into the tunnel without the kernel.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VtepValue {
    /// Source of packets that go there.
    pub local: Addr,
    /// Link, neighbour and MTU; of an epoch.
    pub hop: Hop,
}
