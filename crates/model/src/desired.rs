//! The desired forwarding state of one node, the same for every data plane.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use serde::{Serialize, Serializer};

use crate::derive::{Diagnostic, derive_service};
use crate::inputs::{Algorithm, Family, Inputs, ObjectKey, Protocol, TrafficPolicy};
use crate::settings::NodeSettings;

#[cfg(test)]
mod tests;

/// Where a client knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Frontend {
    #[serde(rename = "address")]
    pub addr: FrontendAddr,
    pub port: u16,
    pub protocol: Protocol,
    pub kind: FrontendKind,
}

/// The address part of a frontend. In JSON the address, or null for those of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendAddr {
    Ip(IpAddr),
    /// Any local address of the node of this family but loopback, or those of them that `--nodeport-addresses` names:
    /// [`NodeContext::knocks_at_node`](crate::NodeContext::knocks_at_node). As kube-proxy's iptables mode with
    /// `--iptables-localhost-nodeports=false`, but for sockets where a data plane translates those.
    AnyNodeAddress(Family),
}

impl Serialize for FrontendAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Ip(ip) => ip.serialize(serializer),
            Self::AnyNodeAddress(_) => serializer.serialize_none(),
        }
    }
}

impl FrontendAddr {
    /// The address family.
    pub fn family(self) -> Family {
        match self {
            Self::Ip(ip) => Family::of(ip),
            Self::AnyNodeAddress(family) => family,
        }
    }
}

/// Why the frontend exists; decides about policy and masquerade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum FrontendKind {
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    NodePort,
    #[serde(rename = "ExternalIP")]
    ExternalIp,
    LoadBalancer,
}

impl FrontendKind {
    /// Whether traffic from outside the cluster is meant to arrive here.
    pub fn is_external(self) -> bool {
        self != Self::ClusterIp
    }
}

/// Who asks, as far as traffic policy is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Client {
    /// A pod of the cluster or a process of this node. At a NodePort, external or load balancer address it is
    /// served as if it had used the cluster IP, whatever `externalTrafficPolicy` says (short circuit).
    Internal,
    /// Everybody else.
    External,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Backend {
    #[serde(rename = "address")]
    pub addr: SocketAddr,
    /// On this node.
    pub local: bool,
}

/// One port of one Service in one family: its frontends share the backend sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortRule {
    pub port_name: Arc<str>,
    pub protocol: Protocol,
    pub family: Family,
    pub frontends: Vec<Frontend>,
    /// Usable endpoints for policy `Cluster`, sorted, without duplicates.
    pub cluster: Vec<Backend>,
    /// Usable endpoints for policy `Local`: the ones on this node; empty where [no packet can meet it](Self::uses_local). Not
    /// always a subset of `cluster`: each set falls back to terminating endpoints by itself.
    pub local: Vec<Backend>,
    /// Endpoints in neither set that still answer (condition `serving`), sorted: terminating while others are ready,
    /// or left out by policy or topology. They get no new flow here, but keep those that they have. Of UDP ports only: no data plane cuts
    /// flows of the other protocols.
    pub lingering: Vec<SocketAddr>,
    /// Whether any usable endpoint exists on any node. If not, packets are rejected; if there is one, but not in
    /// the set that the policy allows, they are dropped (so that a load balancer tries elsewhere).
    pub any_endpoints: bool,
    pub internal_policy: TrafficPolicy,
    pub external_policy: TrafficPolicy,
    #[serde(rename = "affinitySeconds", serialize_with = "seconds")]
    pub affinity: Option<Duration>,
    /// Who may use the load balancer addresses, of this rule's family; empty means everyone.
    pub source_ranges: Vec<IpNetwork>,
}

fn seconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs()).serialize(serializer)
}

impl PortRule {
    /// The policy that `client` meets at a frontend of that kind.
    pub fn policy_for(&self, kind: FrontendKind, client: Client) -> TrafficPolicy {
        match (kind, client) {
            (FrontendKind::ClusterIp, _) => self.internal_policy,
            (_, Client::Internal) => TrafficPolicy::Cluster,
            (_, Client::External) => self.external_policy,
        }
    }

    /// The backends that a policy allows, each as likely as any other.
    pub fn backends(&self, policy: TrafficPolicy) -> &[Backend] {
        match policy {
            TrafficPolicy::Cluster => &self.cluster,
            TrafficPolicy::Local => &self.local,
        }
    }

    /// What a packet meets when the set that its policy allows is empty.
    pub fn when_empty(&self) -> WhenEmpty {
        if self.any_endpoints {
            WhenEmpty::Drop
        } else {
            WhenEmpty::Reject
        }
    }

    /// Whether `loadBalancerSourceRanges` let this source in. They concern load balancer addresses only.
    pub fn admits(&self, kind: FrontendKind, source: IpAddr) -> bool {
        kind != FrontendKind::LoadBalancer
            || self.source_ranges.is_empty()
            || self
                .source_ranges
                .iter()
                .any(|range| range.contains(source))
    }

    /// Whether any frontend is open to the outside.
    pub fn is_external(&self) -> bool {
        self.frontends.iter().any(|f| f.kind.is_external())
    }

    /// Whether some packet can meet policy `Local`. If not, nobody needs to program the set `local`.
    pub fn uses_local(&self) -> bool {
        let has = |external| {
            self.frontends
                .iter()
                .any(|f| f.kind.is_external() == external)
        };
        (self.internal_policy == TrafficPolicy::Local && has(false))
            || (self.external_policy == TrafficPolicy::Local && has(true))
    }

    /// Whether some packet can meet policy `Cluster`. External frontends always can: see [`Client::Internal`].
    pub fn uses_cluster(&self) -> bool {
        self.internal_policy == TrafficPolicy::Cluster || self.is_external()
    }
}

/// What a packet for a frontend meets when no backend may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum WhenEmpty {
    /// Refused at once: TCP reset / ICMP port unreachable.
    Reject,
    /// Silence, so that a load balancer in front retries elsewhere.
    Drop,
}

/// All port rules of one Service, both families.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRules {
    pub ports: Vec<PortRule>,
    /// What a load balancer may ask this node about the Service.
    pub health_check: Option<HealthCheck>,
    /// How one of several backends is chosen for a new flow. Whichever it is, any backend of the set is allowed.
    pub algorithm: Algorithm,
}

impl ServiceRules {
    /// The cluster IPs, each once: their ports that no frontend has are refused.
    pub fn cluster_ips(&self) -> BTreeSet<IpAddr> {
        let frontends = self.ports.iter().flat_map(|rule| &rule.frontends);
        frontends
            .filter_map(|frontend| match (frontend.kind, frontend.addr) {
                (FrontendKind::ClusterIp, FrontendAddr::Ip(ip)) => Some(ip),
                _ => None,
            })
            .collect()
    }
}

/// `spec.healthCheckNodePort` of a LoadBalancer with `externalTrafficPolicy: Local`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    pub port: u16,
    /// Ready endpoints on this node. Terminating ones do not count, so that the load balancer leaves before they do.
    pub local_ready: usize,
}

/// The whole node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    pub services: BTreeMap<ObjectKey, ServiceRules>,
}

impl Desired {
    /// Derives these Services anew; the cost is theirs alone. Returns the diagnostics of these Services.
    pub fn update<'a>(
        &mut self,
        inputs: &Inputs,
        keys: impl IntoIterator<Item = &'a ObjectKey>,
        settings: &NodeSettings,
    ) -> Vec<Diagnostic> {
        let mut diagnostics = Vec::new();
        for key in keys {
            let (rules, found) = derive_service(inputs, key, settings);
            diagnostics.extend(found);
            match rules {
                Some(rules) => self.services.insert(key.clone(), rules),
                None => self.services.remove(key),
            };
        }
        diagnostics
    }

    /// The rule that takes a packet for this destination. An exact address wins over "any node address"; where two
    /// Services claim the same frontend (two equal external IPs) the one with the smaller key has it, in every data
    /// plane. Walks all Services: for the oracle and for people, not for a hot path.
    pub fn find(
        &self,
        addr: IpAddr,
        port: u16,
        protocol: Protocol,
        serves_node_ports: bool,
    ) -> Option<(&ObjectKey, &PortRule, &Frontend)> {
        let family = Family::of(addr);
        let find = |wanted: FrontendAddr| {
            self.services.iter().find_map(|(key, service)| {
                service.ports.iter().find_map(|rule| {
                    let frontend = rule
                        .frontends
                        .iter()
                        .find(|f| f.addr == wanted && f.port == port && f.protocol == protocol)?;
                    Some((key, rule, frontend))
                })
            })
        };
        find(FrontendAddr::Ip(addr)).or_else(|| {
            serves_node_ports
                .then(|| find(FrontendAddr::AnyNodeAddress(family)))
                .flatten()
        })
    }

    /// The Service that has this cluster IP. Those of its ports that [`Desired::find`] does not know are refused, so that
    /// a client learns of its mistake at once and not by a timeout: no route leads there. Other addresses of a Service
    /// are somebody's own: a node's, a load balancer's.
    pub fn owner_of_cluster_ip(&self, addr: IpAddr) -> Option<&ObjectKey> {
        let mut services = self.services.iter();
        let owner = services.find(|(_, rules)| rules.cluster_ips().contains(&addr));
        owner.map(|(key, _)| key)
    }

    /// The keys of all Services, for a full sync.
    pub fn keys(&self) -> BTreeSet<ObjectKey> {
        self.services.keys().cloned().collect()
    }
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

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.addr)
    }
}
