//! Pods by their addresses: those of this node by the host's end of their link, those of other nodes by the end of the tunnel.
//! What stands here is what the kernel's routes and neighbours say; a packet for an address that does not is left to the stack.

use crate::Addr;

/// A pod of this node, by one of its addresses.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PodValue {
    /// The host's end of its link.
    pub ifindex: u32,
    /// `POD_*` bits.
    pub flags: u16,
    /// The largest packet that the link takes, without its Ethernet header.
    pub mtu: u16,
    /// The Ethernet addresses of a packet for the pod: its own, then that of the host's end.
    pub ethernet: [u16; 6],
}

/// Packets go to and from the pod past the stack.
pub const POD_FAST: u16 = 1;

/// Room for addresses of this node's pods.
pub const PODS_LEN: u32 = 16384;

/// The host's end of a pod's link, in an array where it has the place [`pod_link`]; of two links that share one, one is there.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PodLink {
    /// 0: nobody is there.
    pub ifindex: u32,
    /// `POD_LINK_*` bits.
    pub flags: u32,
    /// The first address of the pod, as it stands in a packet; 0: none.
    pub v4: u32,
    pub pad: u32,
    /// Likewise.
    pub v6: Addr,
}

/// All IPv4 addresses of the pod are known: what has another source is not from it.
pub const POD_LINK_V4: u32 = 1;
/// The same of IPv6.
pub const POD_LINK_V6: u32 = 2;
/// What the pod sends may go past the stack.
pub const POD_LINK_FAST: u32 = 4;

/// Places for links of pods, a power of two.
pub const POD_LINKS_LEN: u32 = 8192;

/// The place of a link.
#[inline(always)]
#[must_use]
pub const fn pod_link(ifindex: u32) -> u32 {
    ifindex & (POD_LINKS_LEN - 1)
}

/// Room for networks of pods of other nodes.
pub const PEERS_LEN: u32 = 65536;

/// The node that pods are at, behind the overlay; by [`TunnelKey`](crate::TunnelKey). All zero: the stack knows where they are.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PeerValue {
    /// Its end of the tunnel.
    pub remote: Addr,
    /// The source of packets that go there; unspecified: whatever leads there by the node's routes.
    pub local: Addr,
    pub vni: u32,
    /// The largest packet that the overlay takes, without its Ethernet header.
    pub mtu: u16,
    /// The UDP port of the overlay, as it stands in a packet; 0: packets are left to the overlay's device.
    pub port: u16,
    /// The Ethernet addresses inside of the tunnel: of that node's overlay device, then of ours.
    pub ethernet: [u16; 6],
}

/// The way to a peer's end of the tunnel over IPv4, by its address: for what is put into the tunnel without the overlay's device. It
/// holds until the epoch changes, and for [`TOUCH_INTERVAL_NS`](crate::flow::TOUCH_INTERVAL_NS) at most.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PeerWay {
    /// `CLOCK_MONOTONIC` in nanoseconds, when the routing table was asked.
    pub learned: u64,
    /// The epoch (map `EPOCH`) of that.
    pub epoch: u32,
    /// The uplink.
    pub ifindex: u32,
    /// Source of packets that go there.
    pub local: u32,
    /// Whose Ethernet address they get: the next router, or the peer itself.
    pub next: u32,
    /// The largest packet that the way takes, without its Ethernet header.
    pub mtu: u16,
    pub pad: [u16; 3],
}
