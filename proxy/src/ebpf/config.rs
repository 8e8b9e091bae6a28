//! What the data plane is told at start.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use seaway_model::ownership::BPFFS_ROOT;

/// Settings of [`EbpfDataplane`](super::EbpfDataplane).
#[derive(Debug, Clone)]
pub struct EbpfConfig {
    /// Name of this node, for messages.
    pub node_name: String,
    /// The cgroup (version 2) whose processes are served by socket hooks: the root of the hierarchy on a real node.
    pub cgroup_root: PathBuf,
    /// Where maps and links are pinned, in a directory `v<layout>` of it.
    pub bpffs_root: PathBuf,
    /// Pod networks of the whole cluster. Traffic to a cluster IP from elsewhere is masqueraded; with none given,
    /// everything counts as a pod.
    pub cluster_cidrs: Vec<IpNetwork>,
    /// Masquerade everything that goes to a cluster IP and passes the tc programs. What a socket hook translates has no
    /// other source than its own, whatever this says.
    pub masquerade_all: bool,
    /// The node's address, for masquerading what does not go to a pod; found by the default route if not given.
    pub node_ip: Option<Ipv4Addr>,
    /// Attach through tcx links (`Some(true)`), by clsact filters (`Some(false)`), or as the kernel can.
    pub tcx: Option<bool>,
    /// Sizes of the maps.
    pub sizes: MapSizes,
}

/// How many entries the maps hold. What is pinned already keeps its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapSizes {
    pub frontends: u32,
    pub backends: u32,
    pub flows: u32,
    pub sockets: u32,
}

impl Default for MapSizes {
    fn default() -> Self {
        Self {
            frontends: 65_536,
            backends: 262_144,
            flows: 131_072,
            sockets: 65_536,
        }
    }
}

impl EbpfConfig {
    /// Defaults for a node of this name with its cgroup root.
    pub fn new(node_name: impl Into<String>, cgroup_root: impl Into<PathBuf>) -> Self {
        Self {
            node_name: node_name.into(),
            cgroup_root: cgroup_root.into(),
            bpffs_root: PathBuf::from(BPFFS_ROOT),
            cluster_cidrs: Vec::new(),
            masquerade_all: false,
            node_ip: None,
            tcx: None,
            sizes: MapSizes::default(),
        }
    }

    /// Directory of the pins: another layout never meets these maps.
    pub(super) fn pin_dir(&self) -> PathBuf {
        self.bpffs_root
            .join(format!("v{}", seaway_ebpf_abi::LAYOUT_VERSION))
    }

    /// Directory of the pinned links.
    pub(super) fn link_dir(&self) -> PathBuf {
        self.pin_dir().join("links")
    }
}
