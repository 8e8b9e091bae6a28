//! What tells one kind of packet from another, so that it can be said how many kinds were played.

use seaway_model::{
    Client, Desired, DetectLocal, Family, FrontendKind, NodeContext, Outcome, Outcomes, Packet,
    Protocol, TrafficPolicy,
};

use crate::node::Entry;

/// Packets of one class differ in addresses and ports only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class {
    family: Family,
    protocol: Protocol,
    entry: Entry,
    is_pod: bool,
    is_internal: bool,
    pods_by_link: bool,
    detects_pods: bool,
    masquerade_all: bool,
    some_node_ports: bool,
    frontend: Option<Knocked>,
    /// Whether each kind of outcome is allowed: delivered as it is, masqueraded, rejected, dropped, passed.
    allowed: [bool; 5],
}

/// What the client knocked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Knocked {
    kind: FrontendKind,
    is_local: bool,
    has_endpoints: bool,
    has_affinity: bool,
    has_ranges: bool,
}

impl Class {
    /// The class of a packet of which this is allowed.
    pub(crate) fn of(
        desired: &Desired,
        packet: &Packet,
        entry: Entry,
        node: &NodeContext,
        allowed: &Outcomes,
    ) -> Self {
        let to = packet.destination;
        let on_node = node.serves_node_ports(to.ip());
        let found = desired.find(to.ip(), to.port(), packet.protocol, on_node);
        let client = node.client(packet);
        let any = |wanted: fn(&Outcome) -> bool| allowed.iter().any(wanted);
        Self {
            family: Family::of(to.ip()),
            protocol: packet.protocol,
            entry,
            is_pod: node.is_pod(packet),
            is_internal: client == Client::Internal,
            pods_by_link: matches!(
                node.detect_local,
                DetectLocal::BridgeInterface(_) | DetectLocal::InterfaceNamePrefix(_)
            ),
            detects_pods: node.detect_local.detects(Family::of(to.ip())),
            masquerade_all: node.masquerade_all,
            some_node_ports: node.node_port_addresses.is_some(),
            frontend: found.map(|(_, rule, frontend)| Knocked {
                kind: frontend.kind,
                is_local: rule.policy_for(frontend.kind, client) == TrafficPolicy::Local,
                has_endpoints: rule.any_endpoints,
                has_affinity: rule.affinity.is_some(),
                has_ranges: !rule.source_ranges.is_empty(),
            }),
            allowed: [
                any(|o| {
                    matches!(
                        o,
                        Outcome::Deliver {
                            masqueraded: false,
                            ..
                        }
                    )
                }),
                any(|o| {
                    matches!(
                        o,
                        Outcome::Deliver {
                            masqueraded: true,
                            ..
                        }
                    )
                }),
                any(|o| *o == Outcome::Reject),
                any(|o| *o == Outcome::Drop),
                any(|o| *o == Outcome::Pass),
            ],
        }
    }
}
