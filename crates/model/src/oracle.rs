//! The executable specification: what may become of the first packet of a flow.
//!
//! Every data plane is held against this one function: the walk over the rules that it generates, its programs under
//! test run, and real packets. It follows kube-proxy's iptables mode (`TestInternalExternalMasquerade` and its
//! neighbours in `pkg/proxy/iptables/proxier_test.go`), written down once instead of twice.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

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

/// What a Service port with session affinity remembers of a client, whichever of its frontends that had used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Remembered {
    /// Who has answered.
    pub backend: SocketAddr,
    /// Time since the client's last new connection.
    pub age: Duration,
}

/// What may become of `packet` on `node`, from a client that is not remembered.
pub fn outcomes(desired: &Desired, packet: &Packet, node: &NodeContext) -> Outcomes {
    if let Some((rule, kind)) = find(desired, packet, node) {
        return at_frontend(rule, kind, packet, node);
    }
    let owner = desired.owner_of_cluster_ip(packet.destination.ip());
    Outcomes::from([owner.map_or(Outcome::Pass, |_| Outcome::Reject)])
}

/// The same, from a client that the port remembers: the same endpoint until the timeout, but only if this packet may
/// be given to it. One that went, or that the policy of this frontend does not allow, releases the client.
pub fn outcomes_for_known(
    desired: &Desired,
    packet: &Packet,
    node: &NodeContext,
    remembered: &Remembered,
) -> Outcomes {
    let allowed = outcomes(desired, packet, node);
    let timeout = find(desired, packet, node).and_then(|(rule, _)| rule.affinity);
    if timeout.is_none_or(|timeout| remembered.age >= timeout) {
        return allowed;
    }
    let again = |outcome: &Outcome| match outcome {
        Outcome::Deliver { backend, .. } => *backend == remembered.backend,
        Outcome::Reject | Outcome::Drop | Outcome::Pass => false,
    };
    let again: Outcomes = allowed.iter().copied().filter(again).collect();
    if again.is_empty() { allowed } else { again }
}

fn find<'a>(
    desired: &'a Desired,
    packet: &Packet,
    node: &NodeContext,
) -> Option<(&'a PortRule, FrontendKind)> {
    let destination = packet.destination;
    let (_, rule, frontend) = desired.find(
        destination.ip(),
        destination.port(),
        packet.protocol,
        node.knocks_at_node(packet),
    )?;
    Some((rule, frontend.kind))
}

fn at_frontend(
    rule: &PortRule,
    kind: FrontendKind,
    packet: &Packet,
    node: &NodeContext,
) -> Outcomes {
    if !rule.admits(kind, packet.source) {
        return Outcomes::from([Outcome::Drop]);
    }
    let policy = rule.policy_for(kind, node.client(packet));
    let backends = rule.backends(policy);
    if backends.is_empty() {
        return Outcomes::from([match rule.when_empty() {
            WhenEmpty::Reject => Outcome::Reject,
            WhenEmpty::Drop => Outcome::Drop,
        }]);
    }
    let masqueraded = masqueraded(rule, kind, packet, node);
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
