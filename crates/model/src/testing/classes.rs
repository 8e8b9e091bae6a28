//! What tells one kind of packet from another, so that it can be said how many kinds are covered, and by what
//! (`docs/packets.md`).

use std::collections::BTreeSet;
use std::fmt;

use super::scenes::{Scene, names};
use crate::derive::derive_all;
use crate::desired::{Client, Desired, FrontendKind};
use crate::inputs::{Family, Protocol, TrafficPolicy};
use crate::oracle::{NodeContext, Origin, Outcome, Outcomes, Packet, outcomes};
use crate::settings::DetectLocal;

/// By what a packet comes to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// A socket of one of its own processes.
    Socket,
    /// The link of a pod.
    Pod,
    Uplink,
    /// The tunnel from other nodes.
    Overlay,
}

impl Way {
    /// Those by which this packet may come.
    pub fn of(packet: &Packet) -> &'static [Self] {
        let is_pod = || {
            names::cluster_cidrs()
                .iter()
                .any(|cidr| cidr.contains(packet.source))
        };
        match packet.origin {
            Origin::NodeProcess => &[Self::Socket],
            Origin::LocalPod => &[Self::Pod],
            Origin::External if is_pod() => &[Self::Uplink, Self::Overlay],
            Origin::External => &[Self::Uplink],
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Socket => "a socket of the node",
            Self::Pod => "a pod's link",
            Self::Uplink => "an uplink",
            Self::Overlay => "the overlay",
        })
    }
}

/// Packets of one class differ in addresses and ports only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    pub way: Way,
    /// What the client knocked at; `None`: nothing of a Service.
    pub frontend: Option<Knocked>,
    pub family: Family,
    pub protocol: Protocol,
    /// The source counts as that of a pod.
    is_pod: bool,
    is_internal: bool,
    pods_by_link: bool,
    detects_pods: bool,
    masquerade_all: bool,
    some_node_ports: bool,
    /// Whether each kind of outcome is allowed: delivered as it is, masqueraded, rejected, dropped, passed.
    allowed: [bool; 5],
}

/// A frontend as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Knocked {
    pub kind: FrontendKind,
    is_local: bool,
    has_endpoints: bool,
    has_affinity: bool,
    has_ranges: bool,
}

impl Class {
    /// The class of a packet that comes by this way, and of which this is allowed.
    pub fn of(
        desired: &Desired,
        packet: &Packet,
        way: Way,
        node: &NodeContext,
        allowed: &Outcomes,
    ) -> Self {
        let to = packet.destination;
        let on_node = node.knocks_at_node(packet);
        let found = desired.find(to.ip(), to.port(), packet.protocol, on_node);
        let client = node.client(packet);
        let any = |wanted: fn(&Outcome) -> bool| allowed.iter().any(wanted);
        let arrives = |as_masqueraded: bool| {
            allowed.iter().any(|outcome| {
                matches!(outcome, Outcome::Deliver { masqueraded, .. } if *masqueraded == as_masqueraded)
            })
        };
        Self {
            way,
            family: Family::of(to.ip()),
            protocol: packet.protocol,
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
                arrives(false),
                arrives(true),
                any(|outcome| *outcome == Outcome::Reject),
                any(|outcome| *outcome == Outcome::Drop),
                any(|outcome| *outcome == Outcome::Pass),
            ],
        }
    }
}

/// The classes of the packets of a scene, by all ways that `wanted` takes.
pub fn of_scene(scene: &Scene, wanted: impl Fn(&Packet, Way) -> bool) -> BTreeSet<Class> {
    let (desired, _) = derive_all(&scene.inputs, &scene.settings);
    let packets = scene.cases.iter().map(|case| &case.packet);
    let ways = packets.flat_map(|packet| Way::of(packet).iter().map(move |way| (packet, *way)));
    ways.filter(|(packet, way)| wanted(packet, *way))
        .map(|(packet, way)| {
            let allowed = outcomes(&desired, packet, &scene.node);
            Class::of(&desired, packet, way, &scene.node, &allowed)
        })
        .collect()
}

/// Whether classifiers see such a packet: processes of the node meet socket hooks instead.
pub fn is_for_classifiers(_: &Packet, way: Way) -> bool {
    way != Way::Socket
}
