//! The desired forwarding state of one node, the same for every data plane.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use serde::Serialize;

use crate::inputs::{Family, ObjectKey, Protocol, TrafficPolicy};

/// Where a client knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Frontend {
    pub addr: FrontendAddr,
    pub port: u16,
    pub protocol: Protocol,
    pub kind: FrontendKind,
}

/// The address part of a frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum FrontendAddr {
    Ip(IpAddr),
    /// Any local address of the node of this family (`--nodeport-addresses` unset, as kube-proxy's iptables mode).
    AnyNodeAddress(Family),
}

/// Why the frontend exists; decides about policy and masquerade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum FrontendKind {
    ClusterIp,
    NodePort,
    ExternalIp,
    LoadBalancer,
}

impl FrontendKind {
    /// Whether traffic from outside the cluster is meant to arrive here.
    pub fn is_external(self) -> bool {
        self != Self::ClusterIp
    }
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Backend {
    pub addr: SocketAddr,
    /// On this node.
    pub local: bool,
}

/// One port of one Service in one family: its frontends share the backend sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortRule {
    pub port_name: Arc<str>,
    pub protocol: Protocol,
    pub family: Family,
    pub frontends: Vec<Frontend>,
    /// Usable endpoints for policy `Cluster`, sorted, without duplicates.
    pub cluster: Vec<Backend>,
    /// Usable endpoints for policy `Local`: the ones on this node.
    pub local: Vec<Backend>,
    /// Whether any usable endpoint exists on any node. If not, packets are rejected; if there is one, but not in
    /// the set that the policy allows, they are dropped (so that a load balancer tries elsewhere).
    pub any_endpoints: bool,
    pub internal_policy: TrafficPolicy,
    pub external_policy: TrafficPolicy,
    pub affinity: Option<Duration>,
    pub source_ranges: Vec<IpNetwork>,
}

/// What a packet for a frontend meets when no backend may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum WhenEmpty {
    /// Refused at once: TCP reset / ICMP port unreachable.
    Reject,
    /// Silence, so that a load balancer in front retries elsewhere.
    Drop,
}

/// All port rules of one Service, both families.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ServiceRules {
    pub ports: Vec<PortRule>,
}

/// The whole node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Desired {
    pub services: BTreeMap<ObjectKey, ServiceRules>,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr {
            FrontendAddr::Ip(ip) => {
                write!(f, "{}/{}", SocketAddr::new(ip, self.port), self.protocol)
            }
            FrontendAddr::AnyNodeAddress(_) => write!(f, "node:{}/{}", self.port, self.protocol),
        }
    }
}
