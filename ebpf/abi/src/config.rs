//! What programs have to know of their node. It lives in a map, so that a new address needs no new programs.

/// How many pod networks [`Config`] holds.
pub const MAX_CIDRS: usize = 4;

/// The node, as programs see it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Config {
    /// Cookie of the node's network namespace: only there is 127.0.0.1 the node.
    pub netns_cookie: u64,
    /// Source of masqueraded packets to pods: the base address of the node's pod network. 0: the node has none.
    pub overlay_addr: u32,
    /// Source of masqueraded packets to anything else.
    pub node_addr: u32,
    /// The overlay's link, 0 while there is none.
    pub overlay_ifindex: u32,
    /// `CONFIG_*` bits.
    pub flags: u32,
    /// Ports to masquerade with, host order, both inclusive. They lie outside of the range from which the kernel
    /// gives ports to sockets of the node, so that the two never pick the same.
    pub snat_port_min: u16,
    pub snat_port_max: u16,
    /// How many of `cidrs` are in use.
    pub cidr_count: u32,
    /// The cluster's pod networks.
    pub cidrs: [Cidr; MAX_CIDRS],
}

/// An IPv4 network, network byte order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Cidr {
    pub addr: u32,
    pub mask: u32,
}

/// Masquerade everything that goes to a cluster IP and that the tc programs translate (`--masquerade-all`).
pub const CONFIG_MASQUERADE_ALL: u32 = 1;

impl Config {
    /// Whether an address belongs to a pod of the cluster. With no pod network given, every address does: then
    /// nothing is known about who is outside, and kube-proxy does not masquerade either.
    #[inline(always)]
    #[must_use]
    pub const fn in_cluster(&self, addr: u32) -> bool {
        let c = &self.cidrs;
        self.cidr_count == 0
            || (addr & c[0].mask == c[0].addr)
            || (self.cidr_count > 1 && addr & c[1].mask == c[1].addr)
            || (self.cidr_count > 2 && addr & c[2].mask == c[2].addr)
            || (self.cidr_count > 3 && addr & c[3].mask == c[3].addr)
    }
}
