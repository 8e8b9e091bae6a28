//! The executable specification: what may become of the first packet of a flow.
//!
//! Every data plane is held against this one function: the walk over the rules that it generates, its programs under
//! test run, and real packets. It follows kube-proxy's iptables mode (`TestInternalExternalMasquerade` and its
//! neighbours in `pkg/proxy/iptables/proxier_test.go`), written down once instead of twice.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::desired::{Client, Desired, FrontendKind, PortRule, WhenEmpty};
use crate::inputs::{Family, Protocol, TrafficPolicy};

mod node;
#[cfg(test)]
mod tests;

pub use node::NodeContext;

/// Where a packet enters the node's packet path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Origin {
    /// From a pod of this node, over its link (or its socket).
    LocalPod,
    /// From a process in the node's own network namespace.
    NodeProcess,
    /// From a node device: other nodes, other nodes' pods, the world.
    External,
}

/// The first packet of a flow, before any translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: SocketAddr,
    pub protocol: Protocol,
    pub origin: Origin,
}

/// What may become of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Outcome {
    /// Arrives at this endpoint.
    Deliver {
        backend: SocketAddr,
        /// Whether the endpoint sees an address of this node instead of the packet's source. For
        /// [`Origin::NodeProcess`] the source is an address of the node in any case: a data plane that lets the
        /// kernel choose it on the way to the endpoint (socket hooks) satisfies either value.
        masqueraded: bool,
    },
    /// Refused at once: TCP reset / ICMP port unreachable.
    Reject,
    /// Silence.
    Drop,
    /// None of our business; goes on as if we were not there.
    Pass,
}

/// The outcomes that are allowed. More than one only where a backend is chosen; each must be possible and none
/// else.
pub type Outcomes = BTreeSet<Outcome>;

/// What may become of `packet` on `node`.
pub fn outcomes(desired: &Desired, packet: &Packet, node: &NodeContext) -> Outcomes {
    let destination = packet.destination;
    let Some((_, rule, frontend)) = desired.find(
        destination.ip(),
        destination.port(),
        packet.protocol,
        node.serves_node_ports(destination.ip()),
    ) else {
        return Outcomes::from([Outcome::Pass]);
    };
    if !rule.admits(frontend.kind, packet.source) {
        return Outcomes::from([Outcome::Drop]);
    }
    let policy = rule.policy_for(frontend.kind, node.client(packet));
    let backends = rule.backends(policy);
    if backends.is_empty() {
        return Outcomes::from([match rule.when_empty() {
            WhenEmpty::Reject => Outcome::Reject,
            WhenEmpty::Drop => Outcome::Drop,
        }]);
    }
    let masqueraded = masqueraded(rule, frontend.kind, packet, node);
    backends
        .iter()
        .map(|backend| Outcome::Deliver {
            backend: backend.addr,
            // Hairpin: an endpoint must not see itself as the peer, or it answers itself directly.
            masqueraded: masqueraded || backend.addr.ip() == packet.source,
        })
        .collect()
}

/// Whether the source is rewritten, hairpin apart.
fn masqueraded(rule: &PortRule, kind: FrontendKind, packet: &Packet, node: &NodeContext) -> bool {
    let is_pod = node.is_pod(packet);
    match (kind, rule.external_policy) {
        // Replies to sources outside of the cluster must come back through this node.
        (FrontendKind::ClusterIp, _) => {
            node.masquerade_all || (node.detect_local.detects(Family::of(packet.source)) && !is_pod)
        }
        // The endpoint may be on another node, which would answer the client directly.
        (_, TrafficPolicy::Cluster) => true,
        // The endpoint is here, so the client's address is kept; but the node itself may have used the frontend's
        // address as its source, and is sent to any endpoint.
        (_, TrafficPolicy::Local) => !is_pod && node.client(packet) == Client::Internal,
    }
}
