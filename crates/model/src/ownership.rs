//! Every name by which we know a kernel object, a file or an API field for our own. `ARCHITECTURE.md` shows the
//! same as a table; `cleanup` is built on nothing else.

/// Prefix of every iptables chain of ours.
pub const CHAIN_PREFIX: &str = "SEAWAY-";

/// The chain of the overlay, for what leaves the cluster; the proxy never touches it.
pub const CHAIN_EGRESS: &str = "SEAWAY-EGRESS";

/// The other chain of the overlay, for what pods send and get.
pub const CHAIN_POD_FORWARD: &str = "SEAWAY-POD-FORWARD";

/// Both; all others of [`CHAIN_PREFIX`] are the proxy's.
pub const CHAINS_OF_OVERLAY: [&str; 2] = [CHAIN_EGRESS, CHAIN_POD_FORWARD];

/// The nftables table (family `inet`) of the overlay: VXLAN from known peers only.
pub const NFT_TABLE_OVERLAY: &str = "seaway-overlay";

/// The VXLAN device of a node.
pub const VXLAN_LINK: &str = "seaway.vxlan";

/// Prefix of the host side of a pod's veth; 11 hex digits follow.
pub const POD_LINK_PREFIX: &str = "sw";

/// Number of the hex digits behind [`POD_LINK_PREFIX`].
pub const POD_LINK_DIGITS: usize = 11;

/// Whether a link of that name is the host side of a pod's veth. No other link of the node begins so and goes on with as many lower
/// case hex digits.
#[must_use]
pub fn is_pod_link(name: &str) -> bool {
    has_digits(name, POD_LINK_PREFIX)
}

/// Whether a link of that name limits what a pod sends.
#[must_use]
pub fn is_shaping_link(name: &str) -> bool {
    has_digits(name, SHAPING_LINK_PREFIX)
}

fn has_digits(name: &str, prefix: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    name.strip_prefix(prefix)
        .is_some_and(|digits| digits.len() == POD_LINK_DIGITS && digits.bytes().all(is_digit))
}

/// `rtm_protocol` of our routes (design.md section 8).
pub const ROUTE_PROTOCOL: u8 = 83;

/// Metric of the routes that the proxy gives to frontends without one; with [`ROUTE_PROTOCOL`] they are known by it.
pub const ROUTE_METRIC: u32 = 83_000;

/// Root of our pins in bpffs; the layout version follows as `v<N>`.
pub const BPFFS_ROOT: &str = "/sys/fs/bpf/seaway";

/// The nibble of the packet mark that is ours.
pub const MARK_MASK: u32 = 0x000f_0000;

/// The bit within [`MARK_MASK`] that asks for masquerade in POSTROUTING.
pub const MARK_MASQUERADE: u32 = 0x0001_0000;

/// The bit within [`MARK_MASK`] that asks the filter table to refuse: REJECT is not allowed in nat, where the Service
/// is found.
pub const MARK_REJECT: u32 = 0x0002_0000;

/// The bit within [`MARK_MASK`] that asks the filter table to drop.
pub const MARK_DROP: u32 = 0x0004_0000;

/// Sockets, pid files and what does not survive a reboot.
pub const RUN_DIR: &str = "/run/seaway";

/// What survives a reboot.
pub const STATE_DIR: &str = "/var/lib/seaway";

/// Prefix of labels and annotations.
pub const API_PREFIX: &str = "seaway.dev/";

/// Annotation of a Service: how a backend is chosen for a new flow, `random` or `maglev`.
pub const ALGORITHM_ANNOTATION: &str = "seaway.dev/load-balancer-algorithm";

/// Annotation of a Node: whether it answers clients of other nodes itself
/// ([`DirectAnswers`](crate::DirectAnswers)); its proxy keeps it.
pub const DIRECT_ANSWERS_ANNOTATION: &str = "seaway.dev/direct-answers";

/// Label of a Pod whose sockets eBPF mode leaves alone, when it has the value `untranslated`.
pub const SOCKETS_LABEL: &str = "seaway.dev/sockets";

/// VXLAN network identifier, as flannel's default.
pub const VXLAN_VNI: u32 = 1;

/// VXLAN destination port, as flannel's default (IANA's is 4789).
pub const VXLAN_PORT: u16 = 8472;

/// UDP port, at the overlay's addresses, by which overlays probe the way to each other.
pub const PROBE_PORT: u16 = 8473;

/// The gateway that pods see; never on a wire, always a permanent neighbour.
pub const POD_GATEWAY_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 1, 1);

/// File in [`RUN_DIR`] by which the overlay tells the CNI plugin what the node can serve.
pub const NODE_FILE: &str = "node.json";

/// Name of the CNI config list that the overlay writes.
pub const CONFLIST_FILE: &str = "10-seaway.conflist";

/// Prefix of the `ifb` device that limits what a pod sends; the digits of its link follow.
pub const SHAPING_LINK_PREFIX: &str = "sb";

/// Numbers of link groups from here on are ours, of pairs with such a device: with the index of the node's end. An
/// administrator's are small.
pub const SHAPING_LINK_GROUPS: u32 = 0x5ea0_0000;

/// Numbers of routing tables in pods from here on are ours: with five of the attachment's digits.
pub const POD_ROUTE_TABLES: u32 = 0x5ea0_0000;

/// The nftables table (family `inet`) of the CNI plugin: host ports of pods, and pods whose traffic is masqueraded.
pub const HOST_PORTS_TABLE: &str = "seaway-cni";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_others_are_no_links_of_ours() {
        let kinds = |name| (is_pod_link(name), is_shaping_link(name));
        assert_eq!(kinds("sw0123456789a"), (true, false));
        assert_eq!(kinds("sbabcdef01234"), (false, true));
        for other in [
            "sw",
            "sw0",
            "sw0123456789",
            "sw0123456789ab",
            "sw0123456789g",
            "switch-uplink",
            "seaway.vxlan",
            "swABCDEF01234",
            "sbABCDEF01234",
            "sc0123456789a",
        ] {
            assert_eq!(kinds(other), (false, false), "{other}");
        }
    }
}
