//! What the maps say, walked as the classifiers and the socket hooks walk them: for tests of the plan, which hold it against
//! the specification. No kernel is asked.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_ebpf_abi::config::CONFIG_LOCALHOST_NODE_PORTS;
use seaway_ebpf_abi::{
    Addr, Config, FrontendKey, FrontendValue, NODE_ADDR_LOCAL, NODE_ADDR_NODE_PORTS,
};
use seaway_ebpf_logic::decide::{self, Choice, Client};
use seaway_model::{Change, Desired, Family, NodeContext, Origin, Outcome, Outcomes, Packet};

use super::config::EbpfConfig;
use super::image::{Image, Owners};
use super::node::{self, FamilyView, NodeView};
use super::plan::plan;
use super::wanted::Range;

/// The same on all nodes.
const SEED: u32 = 7;

/// The maps of a node.
#[derive(Debug)]
pub struct Maps {
    image: Image,
    owners: Owners,
    config: Config,
    node_addrs: BTreeMap<Addr, u32>,
    node: NodeContext,
}

impl Maps {
    /// Of a node on which nothing has been written yet.
    pub fn new(node: NodeContext) -> Self {
        let settings = EbpfConfig {
            detect_local: node.detect_local.clone(),
            node_port_addresses: node.node_port_addresses.clone(),
            masquerade_all: node.masquerade_all,
            ..EbpfConfig::new("n1", "/sys/fs/cgroup")
        };
        let of_family = |family| FamilyView {
            node_addr: node
                .addresses
                .iter()
                .copied()
                .find(|ip| Family::of(*ip) == family),
            overlay_addr: None,
        };
        let view = NodeView {
            addresses: node.addresses.iter().copied().collect(),
            v4: of_family(Family::V4),
            v6: of_family(Family::V6),
            ..NodeView::default()
        };
        Self {
            image: Image::default(),
            owners: Owners::default(),
            config: node::config(&view, &settings, 7, (32_768, 60_999)),
            node_addrs: node::addresses(&view, &settings),
            node,
        }
    }

    /// Carries out what has to be done for a change; how many steps that were.
    pub fn follow(&mut self, desired: &Desired, change: &Change) -> usize {
        let settings = (&self.node.detect_local, SEED);
        let plan = plan(&self.image, &self.owners, desired, change, settings);
        for op in &plan.ops {
            self.image.take_in(op);
        }
        self.owners.update(plan.owners);
        plan.ops.len()
    }

    fn frontend(&self, addr: Addr, port: u16, protocol: u8) -> Option<&FrontendValue> {
        let key = FrontendKey {
            addr,
            port: port.to_be(),
            protocol,
            pad: 0,
        };
        self.image.frontends.get(&key)
    }

    fn node_addr(&self, addr: &Addr) -> u32 {
        self.node_addrs.get(addr).copied().unwrap_or(0)
    }

    /// What becomes of a packet: `begin` of the classifiers; of a process of the node what the socket hooks do, with the source that it is bound to.
    pub fn outcomes(&self, packet: &Packet) -> Outcomes {
        let (source, to) = (Addr::from(packet.source), packet.destination);
        let addr = Addr::from(to.ip());
        let find = |addr| self.frontend(addr, to.port(), packet.protocol.number());
        let own = packet.origin == Origin::NodeProcess && addr.is_loopback();
        let by_node_port = self.node_addr(&addr) & NODE_ADDR_NODE_PORTS != 0
            || (own && self.config.flags & CONFIG_LOCALHOST_NODE_PORTS != 0);
        let found = find(addr).or_else(|| by_node_port.then(|| find(addr.any())).flatten());
        let all_else = || {
            let by_netfilter = self.frontend(addr, 0, packet.protocol.number());
            self.frontend(addr, 0, 0).filter(|_| by_netfilter.is_none())
        };
        let Some(frontend) = found.or_else(all_else) else {
            return Outcomes::from([Outcome::Pass]);
        };
        if !self.admits(frontend.ranges, packet.source) {
            return Outcomes::from([Outcome::Drop]);
        }
        let is_pod = decide::is_pod(&self.config, &source, packet.origin == Origin::LocalPod);
        let is_node = self.node_addr(&source) & NODE_ADDR_LOCAL != 0;
        let near = is_pod || is_node || packet.origin == Origin::NodeProcess;
        let client = if near { Client::Near } else { Client::Far };
        let set = match decide::choose(frontend, client) {
            Choice::Set { set, .. } => set,
            Choice::Reject => return Outcomes::from([Outcome::Reject]),
            Choice::Drop => return Outcomes::from([Outcome::Drop]),
        };
        let backends = self.image.sets.get(&set).into_iter().flatten();
        backends
            .map(|backend| Outcome::Deliver {
                backend: (backend.addr.ip(), u16::from_be(backend.port)).into(),
                masqueraded: decide::masquerade(
                    &self.config,
                    frontend,
                    (&source, is_pod, client),
                    backend,
                    false,
                )
                .is_some(),
            })
            .collect()
    }

    /// The trie of source ranges.
    fn admits(&self, ranges: u32, source: IpAddr) -> bool {
        let contains = |range: &Range| {
            let network: Result<IpNetwork, _> = range.show().parse();
            network.is_ok_and(|network| network.contains(source))
        };
        ranges == 0
            || self
                .image
                .ranges
                .get(&ranges)
                .is_some_and(|list| list.iter().any(contains))
    }
}

/// Outcomes as far as they can be told apart: a process of the node has an address of the node in any case.
pub fn seen(packet: &Packet, outcomes: Outcomes) -> Outcomes {
    let blur = |outcome| match outcome {
        Outcome::Deliver { backend, .. } if packet.origin == Origin::NodeProcess => {
            Outcome::Deliver {
                backend,
                masqueraded: true,
            }
        }
        other => other,
    };
    outcomes.into_iter().map(blur).collect()
}
