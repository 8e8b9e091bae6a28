//! What programs have to know of their node. It lives in a map, so that a new address needs no new programs.

use crate::addr::{Addr, Cidr};

/// How many pod networks [`Family`] holds.
pub const MAX_CIDRS: usize = 4;

/// The node, as programs see it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Config {
    /// Cookie of the node's network namespace: only there is 127.0.0.1 the node.
    pub netns_cookie: u64,
    /// The overlay's link, 0 while there is none.
    pub overlay_ifindex: u32,
    /// `CONFIG_*` bits.
    pub flags: u32,
    /// Ports to masquerade with, host order, both inclusive. They lie outside of the range from which the kernel
    /// gives ports to sockets of the node, so that the two never pick the same.
    pub snat_port_min: u16,
    pub snat_port_max: u16,
    /// Mixed into hashes of flows, the same on all nodes of a cluster.
    pub hash_seed: u32,
    pub v4: Family,
    pub v6: Family,
}

/// What differs by family.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Family {
    /// Source of masqueraded packets to pods: the base address of the node's pod network. Unspecified: there is none.
    pub overlay_addr: Addr,
    /// Source of masqueraded packets to anything else.
    pub node_addr: Addr,
    /// How many of `cidrs` are in use.
    pub cidr_count: u32,
    /// The networks by whose addresses pods are known.
    pub cidrs: [Cidr; MAX_CIDRS],
}

/// Masquerade everything that goes to a cluster IP and that the tc programs translate (`--masquerade-all`).
pub const CONFIG_MASQUERADE_ALL: u32 = 1;
/// Pods are known by the link that their packets come in by, not by their addresses.
pub const CONFIG_PODS_BY_LINK: u32 = 2;
/// Node ports are served to sockets of the node on loopback addresses.
pub const CONFIG_LOCALHOST_NODE_PORTS: u32 = 4;
/// Clients outside are answered by the node of the backend itself, where the overlay leads there (`--forwarding dsr`).
pub const CONFIG_DSR: u32 = 8;
/// Flows between pods that begin in the stack are taken note of.
pub const CONFIG_POD_DETOURS: u32 = 0x10;
/// Packets between pods go past the stack (`--pod-fast-path`); detours have been taken note of since before.
pub const CONFIG_POD_FAST: u32 = 0x20;
/// A change of mode is under way: what is no known flow is left to the stack, and so are the datagrams that follow it.
pub const CONFIG_HANDOVER: u32 = 0x100;

impl Config {
    /// The part of an address's family.
    #[inline(always)]
    #[must_use]
    pub const fn family(&self, addr: &Addr) -> &Family {
        if addr.is_v4() { &self.v4 } else { &self.v6 }
    }

    /// Whether pods can be told from others in the family of this address.
    #[inline(always)]
    #[must_use]
    pub const fn detects(&self, addr: &Addr) -> bool {
        self.flags & CONFIG_PODS_BY_LINK != 0 || self.family(addr).cidr_count > 0
    }
}

impl Family {
    /// Whether an address lies in one of the pod networks.
    #[inline(always)]
    #[must_use]
    pub const fn is_pod(&self, addr: &Addr) -> bool {
        let c = &self.cidrs;
        (self.cidr_count > 0 && addr.is_in(&c[0]))
            || (self.cidr_count > 1 && addr.is_in(&c[1]))
            || (self.cidr_count > 2 && addr.is_in(&c[2]))
            || (self.cidr_count > 3 && addr.is_in(&c[3]))
    }
}
