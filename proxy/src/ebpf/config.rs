//! What the data plane is told at start.

use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use seaway_model::DetectLocal;
use seaway_model::maglev::DEFAULT_SEED;
use seaway_model::ownership::BPFFS_ROOT;

use super::pods::PodFastPath;
use super::tunnels::Forwarding;
use super::xdp::XdpMode;

/// Settings of [`EbpfDataplane`](super::EbpfDataplane).
#[derive(Debug, Clone)]
pub struct EbpfConfig {
    /// Name of this node, for messages.
    pub node_name: String,
    /// The cgroup (version 2) whose processes are served by socket hooks: the root of the hierarchy on a real node.
    pub cgroup_root: PathBuf,
    /// Where maps and links are pinned, in a directory `v<layout>` of it.
    pub bpffs_root: PathBuf,
    /// How a pod's packet is told from others. What is no pod's is masqueraded on its way to a cluster IP.
    pub detect_local: DetectLocal,
    /// At which addresses of the node its node ports are served (`--nodeport-addresses`); `None`: at all of them, and to
    /// sockets of the node on loopback addresses, too.
    pub node_port_addresses: Option<Vec<IpNetwork>>,
    /// Masquerade everything that goes to a cluster IP and passes the tc programs. What a socket hook translates has no
    /// other source than its own, whatever this says.
    pub masquerade_all: bool,
    /// Mixed into Maglev tables and into hashes of flows, the same on all nodes of a cluster.
    pub maglev_seed: u32,
    /// Attach through tcx links (`Some(true)`), by clsact filters (`Some(false)`), or as the kernel can.
    pub tcx: Option<bool>,
    /// Whether established flows are translated at the driver of uplinks.
    pub xdp: XdpMode,
    /// Who answers clients outside whose endpoint is at another node.
    pub forwarding: Forwarding,
    /// Whether packets between pods go past the stack.
    pub pod_fast_path: PodFastPath,
    /// Sizes of the maps.
    pub sizes: MapSizes,
}

/// How many entries the maps hold, at least: what is pinned and larger stays as it is. The first three grow with the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapSizes {
    pub frontends: u32,
    pub backends: u32,
    /// Chunks of Maglev tables, nine each.
    pub maglev: u32,
    /// Networks of `loadBalancerSourceRanges`. A trie takes memory for entries only.
    pub ranges: u32,
    /// Clients of Services with session affinity.
    pub affinity: u32,
    pub flows: u32,
    pub sockets: u32,
}

/// `--max-flows`, if it is not given.
pub const MAX_FLOWS: u32 = 65_536;

impl MapSizes {
    /// For that many flows of packets, and as many sockets of each kind and clients of Services with session affinity.
    pub fn for_flows(flows: u32) -> Self {
        Self {
            frontends: 1024,
            backends: 4096,
            maglev: 1024,
            ranges: 1 << 20,
            affinity: flows,
            // One for each direction.
            flows: flows.saturating_mul(2),
            sockets: flows,
        }
    }
}

impl Default for MapSizes {
    fn default() -> Self {
        Self::for_flows(MAX_FLOWS)
    }
}

impl EbpfConfig {
    /// Defaults for a node of this name with its cgroup root.
    pub fn new(node_name: impl Into<String>, cgroup_root: impl Into<PathBuf>) -> Self {
        Self {
            node_name: node_name.into(),
            cgroup_root: cgroup_root.into(),
            bpffs_root: PathBuf::from(BPFFS_ROOT),
            detect_local: DetectLocal::default(),
            node_port_addresses: None,
            masquerade_all: false,
            maglev_seed: DEFAULT_SEED,
            tcx: None,
            xdp: XdpMode::default(),
            forwarding: Forwarding::default(),
            pod_fast_path: PodFastPath::default(),
            sizes: MapSizes::default(),
        }
    }

    /// Directory of the pins.
    pub(super) fn pin_dir(&self) -> PathBuf {
        pin_dir(&self.bpffs_root)
    }

    /// Directory of the pins of another layout.
    pub(super) fn layout_dir(&self, version: u32) -> PathBuf {
        self.bpffs_root.join(format!("v{version}"))
    }

    /// Directory of the pinned links.
    pub(super) fn link_dir(&self) -> PathBuf {
        self.pin_dir().join("links")
    }
}

/// Directory of the pins below a root: another layout never meets these maps.
pub(super) fn pin_dir(bpffs_root: &Path) -> PathBuf {
    bpffs_root.join(format!("v{}", seaway_ebpf_abi::LAYOUT_VERSION))
}
