//! What the outside world tells us, reduced to what forwarding needs.
//!
//! These are not API objects: the conversion (in `seaway-cluster`) has already dropped everything else, so
//! that 100,000 endpoints stay small. Both address families are here from the start.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::derive::Diagnostic;

mod index;
mod key;
#[cfg(test)]
mod tests;

pub use index::Inputs;
pub use key::ObjectKey;

/// An IP family; each is an independent pipeline (KEP-563).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    #[serde(rename = "IPv4")]
    V4,
    #[serde(rename = "IPv6")]
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A transport protocol of a Service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The name as iptables and `dump` write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// IANA protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `internalTrafficPolicy` / `externalTrafficPolicy`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum TrafficPolicy {
    #[default]
    Cluster,
    Local,
}

/// How a backend is chosen for a new flow.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// Each with the same chance.
    #[default]
    Random,
    /// By a hash of the flow, so that every node picks the same: [`maglev`](crate::maglev).
    Maglev,
}

impl Algorithm {
    /// As flags and annotations write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Maglev => "maglev",
        }
    }

    /// What a flag or an annotation says; `None` if it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Random, Self::Maglev]
            .into_iter()
            .find(|algorithm| algorithm.as_str() == text)
    }
}

/// A Service that has a cluster IP. Headless and `ExternalName` Services never become one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub key: ObjectKey,
    /// `spec.clusterIPs`, at most one per family.
    pub cluster_ips: Vec<IpAddr>,
    pub ports: Vec<ServicePort>,
    pub internal_policy: TrafficPolicy,
    pub external_policy: TrafficPolicy,
    /// `sessionAffinity: ClientIP` with its timeout.
    pub affinity: Option<Duration>,
    /// `status.loadBalancer.ingress` addresses with `ipMode: VIP` (or none).
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.externalIPs`, served only where the operator allows it
    /// ([`external_ip_cidrs`](crate::NodeSettings::external_ip_cidrs)).
    pub external_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`; empty means everyone.
    pub source_ranges: Vec<IpNetwork>,
    /// Of a LoadBalancer with `externalTrafficPolicy: Local` only.
    pub health_check_node_port: Option<u16>,
    /// Annotation [`ALGORITHM_ANNOTATION`](crate::ownership::ALGORITHM_ANNOTATION); the node's default if there is none.
    pub algorithm: Option<Algorithm>,
}

/// One entry of `spec.ports`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Empty for the only port of a Service that has no name.
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

/// One EndpointSlice; the endpoints of a Service are the union over all of its slices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSlice {
    pub key: ObjectKey,
    /// The Service, by the label `kubernetes.io/service-name`; same namespace.
    pub service: ObjectKey,
    pub family: Family,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<Endpoint>,
    /// Annotation `endpoints.kubernetes.io/last-change-trigger-time`: when the change happened that led to this slice.
    /// For the measure of how late we are; forwarding does not depend on it.
    pub last_change: Option<SystemTime>,
}

impl EndpointSlice {
    /// Whether traffic cannot tell the one from the other.
    fn forwards_as(&self, other: &Self) -> bool {
        let Self {
            key,
            service,
            family,
            ports,
            endpoints,
            last_change: _,
        } = self;
        (key, service, family) == (&other.key, &other.service, &other.family)
            && (ports, endpoints) == (&other.ports, &other.endpoints)
    }
}

/// A port of a slice, joined to the Service's ports by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlicePort {
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub port: u16,
}

/// One endpoint of a slice. Conditions have their defaults filled in: ready if unset, serving as ready,
/// terminating false.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The first of its addresses: the API defines no meaning for others.
    pub address: IpAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub node: Option<Arc<str>>,
    /// The zones from which the endpoint should be used (`hints.forZones`).
    pub zone_hints: Box<[Arc<str>]>,
    /// The nodes from which the endpoint should be used (`hints.forNodes`).
    pub node_hints: Box<[Arc<str>]>,
}

/// A Node, for the proxy (own labels and addresses) and the overlay (peers).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: Arc<str>,
    /// `status.addresses` of type `InternalIP`, in order.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`, at most one per family.
    pub pod_cidrs: Vec<IpNetwork>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// The node is about to go: it is being deleted, or has the taint `ToBeDeletedByClusterAutoscaler`. Load
    /// balancers are told to look elsewhere; forwarding goes on.
    pub draining: bool,
    /// Annotation `seaway.dev/direct-answers`.
    #[serde(default)]
    pub direct_answers: DirectAnswers,
}

/// Whose clients a node answers itself when another node sends their packets on as they are (`--forwarding dsr`), as the
/// proxy there says.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum DirectAnswers {
    /// Nobody's, or in a way that we do not know: rules cannot do it.
    #[default]
    No,
    /// Those of flows that it has, for as long as they last: it serves by rules now.
    Begun,
    /// Everybody's.
    All,
}

impl DirectAnswers {
    /// As the annotation says it, with the version of how the packets are marked; `None` if there is none.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::No => None,
            Self::Begun => Some("v1-begun"),
            Self::All => Some("v1"),
        }
    }

    /// What an annotation says.
    pub fn parse(text: &str) -> Self {
        let known = [Self::Begun, Self::All];
        let said = known.into_iter().find(|all| all.as_str() == Some(text));
        said.unwrap_or_default()
    }
}

/// The kinds of objects of which a source has findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Service,
    Slice,
    /// Its key has no namespace, and so is never that of a Service.
    Node,
}

/// One change from a source. `None` means that the object is gone (or left our selector).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputEvent {
    /// What the source could not read of an object, in place of what it said about it before; follows the object.
    Findings(Kind, ObjectKey, Vec<Diagnostic>),
    Service(ObjectKey, Option<Service>),
    Slice(ObjectKey, Option<EndpointSlice>),
    Node(Arc<str>, Option<Node>),
    /// Every kind that the source watches has been listed once: state may be programmed from now on.
    Synced,
}

/// What a batch of events touched: the unit of work for a data plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Everything: the first sync, or after a failed apply.
    Full,
    /// These Services only.
    Services(BTreeSet<ObjectKey>),
}
