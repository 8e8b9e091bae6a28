//! The rules of iptables mode, as a kernel would have them that followed every change.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use seaway_model::{
    Change, Desired, Family, FrontendAddr, NodeContext, ObjectKey, Origin, Outcomes, Packet,
    outcomes,
};
use seaway_proxy::iptables::fake::Fake;
use seaway_proxy::iptables::plan::{FamilyPlan, Image, Settings};
use seaway_proxy::iptables::walk::walk;

/// Packets are walked for so many frontends: the rest is no other.
const FRONTENDS: usize = 16;

/// Both families.
#[derive(Debug)]
pub struct Rules {
    node: NodeContext,
    families: [OneFamily; 2],
}

#[derive(Debug)]
struct OneFamily {
    settings: Settings,
    image: Image,
    kernel: Fake,
}

impl Rules {
    /// Of a node that nobody has touched yet.
    pub fn new(node: NodeContext) -> Self {
        let families = [Family::V4, Family::V6].map(|family| OneFamily {
            settings: Settings {
                masquerade_all: node.masquerade_all,
                ..Settings::new(family, &node.detect_local)
                    .node_ports_on(node.node_port_addresses.as_deref())
            },
            image: Image::default(),
            kernel: Fake::new(family),
        });
        Self { node, families }
    }

    /// Programs what has changed, and sends packets.
    ///
    /// # Panics
    ///
    /// When the kernel refuses it, when it ends elsewhere than a full sync, or when a packet meets something else
    /// than the specification says.
    pub fn follow(&mut self, desired: &Desired, touched: &BTreeSet<ObjectKey>) {
        for family in &mut self.families {
            let plan = family.plan(desired, &Change::Services(touched.clone()));
            assert!(!plan.corrected);
            family.apply(plan);
            let full = family.plan(desired, &Change::Full);
            assert!(
                full.transaction.is_empty(),
                "left out: {}",
                full.transaction
            );
            for packet in packets(desired, family.settings.family) {
                family.send(&packet, desired, &self.node);
            }
        }
    }
}

impl OneFamily {
    fn plan(&self, desired: &Desired, change: &Change) -> FamilyPlan {
        self.image.plan(desired, change, &self.settings)
    }

    fn apply(&mut self, plan: FamilyPlan) {
        let text = plan.transaction.as_str();
        if let Err(refused) = self.kernel.restore(text) {
            panic!("{refused} in\n{text}");
        }
        self.image.learn(plan);
        assert_eq!(self.kernel.chains(), self.image.chains);
    }

    fn send(&self, packet: &Packet, desired: &Desired, node: &NodeContext) {
        let met = walk(&self.image.chains, packet, node);
        let met = met.unwrap_or_else(|error| panic!("{packet:?}: {error}"));
        let met: Outcomes = met.into_keys().collect();
        assert_eq!(met, outcomes(desired, packet, node), "{packet:?}");
    }
}

/// Somebody of each kind knocks at the frontends, and at a port beside each.
pub(crate) fn packets(desired: &Desired, family: Family) -> Vec<Packet> {
    let rules = desired.services.values().flat_map(|service| &service.ports);
    let rules = rules.filter(|rule| rule.family == family);
    let knocks = rules.flat_map(|rule| rule.frontends.iter().map(move |frontend| (rule, frontend)));
    let mut packets = Vec::new();
    for (rule, frontend) in knocks.take(FRONTENDS) {
        let nodes = crate::cluster::node_addresses();
        let own = nodes.into_iter().find(|ip| Family::of(*ip) == family);
        let Some(own) = own else { continue };
        let to = match frontend.addr {
            FrontendAddr::Ip(ip) => ip,
            FrontendAddr::AnyNodeAddress(_) => own,
        };
        let mut endpoints = rule.cluster.iter().chain(&rule.local);
        let endpoint = endpoints
            .find(|backend| backend.local)
            .map(|backend| (backend.addr.ip(), Origin::LocalPod));
        let sources = strangers(family)
            .into_iter()
            .chain([(own, Origin::NodeProcess)])
            .chain(endpoint);
        for (source, origin) in sources {
            for port in [frontend.port, frontend.port ^ 1] {
                packets.push(Packet {
                    source,
                    destination: SocketAddr::new(to, port),
                    protocol: frontend.protocol,
                    origin,
                });
            }
        }
    }
    packets
}

/// A pod of this node, and somebody outside.
fn strangers(family: Family) -> [(IpAddr, Origin); 2] {
    let (pod, outsider): (IpAddr, IpAddr) = match family {
        Family::V4 => ([10, 244, 1, 9].into(), [192, 0, 2, 7].into()),
        Family::V6 => (
            [0xfd00, 0x10, 0x244, 1, 0, 0, 0, 9].into(),
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 7].into(),
        ),
    };
    [(pod, Origin::LocalPod), (outsider, Origin::External)]
}
