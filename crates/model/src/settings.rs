//! What the operator decides about one node, as far as forwarding is concerned.

use std::sync::Arc;

use ipnetwork::IpNetwork;
use serde::Serialize;

use crate::inputs::{Algorithm, Family};

/// What [`derive_service`](crate::derive_service) has to know of the node besides its Node object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSettings {
    /// Name of the node: its endpoints and its Node object carry it.
    pub name: Arc<str>,
    /// Ranges in which `spec.externalIPs` are served; empty: none is. Whoever may write a Service could otherwise
    /// take over the traffic to any address (CVE-2020-8554).
    pub external_ip_cidrs: Vec<IpNetwork>,
    /// How backends are chosen for Services that do not say it and are exposed outside of the cluster.
    pub algorithm: Algorithm,
    /// Whether this node's data plane can choose by [`Algorithm::Maglev`]. If not, it chooses at random, and a Service that
    /// asks gets a finding.
    pub carries_maglev: bool,
}

impl NodeSettings {
    /// The defaults, for a node of this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            external_ip_cidrs: Vec::new(),
            algorithm: Algorithm::Random,
            carries_maglev: true,
        }
    }
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self::new("")
    }
}

/// How a packet of a pod is told from others (`--detect-local-mode`): pods keep their source address on the way to a
/// cluster IP, and are served as clients inside of the cluster elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum DetectLocal {
    /// Sources in these ranges are pods, of any node. A family without a range knows no pods.
    ClusterCidr(Vec<IpNetwork>),
    /// Sources in the pod ranges of this node.
    NodeCidr(Vec<IpNetwork>),
    /// Packets that come in over this bridge.
    BridgeInterface(String),
    /// Packets that come in over a link whose name begins so.
    InterfaceNamePrefix(String),
    /// Nobody knows who is a pod, and cluster IP traffic is not masqueraded.
    None,
}

impl Default for DetectLocal {
    fn default() -> Self {
        Self::ClusterCidr(Vec::new())
    }
}

impl DetectLocal {
    /// The ranges of the modes that go by the source address; none in the others.
    pub fn cidrs(&self) -> &[IpNetwork] {
        match self {
            Self::ClusterCidr(cidrs) | Self::NodeCidr(cidrs) => cidrs,
            Self::BridgeInterface(_) | Self::InterfaceNamePrefix(_) | Self::None => &[],
        }
    }

    /// Whether pods can be told from others in this family.
    pub fn detects(&self, family: Family) -> bool {
        match self {
            Self::ClusterCidr(cidrs) | Self::NodeCidr(cidrs) => {
                cidrs.iter().any(|cidr| Family::of(cidr.ip()) == family)
            }
            Self::BridgeInterface(_) | Self::InterfaceNamePrefix(_) => true,
            Self::None => false,
        }
    }
}
