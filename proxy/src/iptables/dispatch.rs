//! From the packet's destination to the Service's chain, in steps that do not grow with the number of Services.
//!
//! ```text
//! SERVICES ─ lowest 4 bits of the address ► SVCS-n ─ next 4 ► SVCS-nm ─ address, protocol, port ► SVC-… / EXT-…
//!    │                                                           └──── cluster IP, any port ► UNKNOWN-PORT
//!    └────── an address of this node ► NODEPORTS ─ range of ports ► NPS-TCP-… ─ port ► EXT-…
//! ```
//!
//! Only chains with something in them exist: with one Service there is one of each kind. A change touches one leaf,
//! and what is above it only when the leaf comes or goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use seaway_model::{Family, Frontend, FrontendAddr, FrontendKind, ObjectKey, Protocol};

use super::names;
use super::plan::Settings;
use super::rule::{AddrMask, ChainName, Match, Rule, Target};
use super::service::Entry;

#[cfg(test)]
mod tests;

/// Ports in one range below NODEPORTS: the default range of 2,768 ports makes 22 of them.
const PORTS_PER_BUCKET: u16 = 128;

/// Where a rule stands in a dispatch chain. The order decides between two Services that claim the same frontend: the
/// smaller key, then the earlier frontend, as [`seaway_model::Desired::find`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// To the chain one level down.
    Down(ChainName),
    /// To the chain of a Service.
    Frontend {
        addr: FrontendAddr,
        port: u16,
        protocol: Protocol,
        service: ObjectKey,
        sequence: usize,
    },
    /// What no frontend of a cluster IP takes: behind all frontends.
    UnknownPort { addr: IpAddr, service: ObjectKey },
    /// To the node ports: behind all exact addresses.
    NodePorts(usize),
}

/// The rules of a dispatch chain in their order.
pub type Slots = BTreeMap<Slot, Rule>;

/// All dispatch chains of a family.
pub type Tree = BTreeMap<ChainName, Slots>;

/// Changes to a tree that is left as it is; what they cost does not depend on its size.
#[derive(Debug)]
pub struct TreeEdit<'a> {
    base: &'a Tree,
    family: Family,
    changed: Tree,
}

/// One step of the way: packets in `above` that match go to `below`.
struct Step {
    above: ChainName,
    matches: Vec<Match>,
    below: ChainName,
}

impl<'a> TreeEdit<'a> {
    /// Starts from `base`, which is empty before the first sync.
    pub fn new(base: &'a Tree, settings: &Settings) -> Self {
        let mut edit = Self {
            base,
            family: settings.family,
            changed: Tree::new(),
        };
        if base.is_empty() {
            edit.changed = roots(settings);
        }
        edit
    }

    /// Takes these entries of a Service in, and the chains that lead to them.
    pub fn insert(&mut self, service: &ObjectKey, entries: &[Entry]) {
        for (sequence, entry) in entries.iter().enumerate() {
            self.set(
                entry.frontend,
                slot(service, sequence, &entry.frontend),
                Some(rule(entry)),
            );
        }
        for frontend in cluster_ips(entries) {
            let (slot, rule) = unknown_port(service, &frontend);
            self.set(frontend, slot, Some(rule));
        }
    }

    /// Takes them out, and the chains that then lead nowhere.
    pub fn remove(&mut self, service: &ObjectKey, entries: &[Entry]) {
        for (sequence, entry) in entries.iter().enumerate() {
            self.set(
                entry.frontend,
                slot(service, sequence, &entry.frontend),
                None,
            );
        }
        for frontend in cluster_ips(entries) {
            let (slot, _) = unknown_port(service, &frontend);
            self.set(frontend, slot, None);
        }
    }

    /// The chains that were touched, with their content; an empty one that is no root is to go.
    pub fn finish(self) -> Tree {
        self.changed
    }

    fn set(&mut self, frontend: Frontend, slot: Slot, rule: Option<Rule>) {
        let steps = way(&frontend, self.family);
        let Some(leaf) = steps.last() else { return };
        put(self.slots(&leaf.below), slot, rule);
        // Upwards, for as long as a chain came or went.
        for step in steps.into_iter().rev() {
            let wanted = !self.slots(&step.below).is_empty();
            let down = Slot::Down(step.below.clone());
            if self
                .current(&step.above)
                .is_some_and(|s| s.contains_key(&down))
                == wanted
            {
                return;
            }
            let rule = wanted.then(|| Rule::new(step.matches, Target::Jump(step.below)));
            put(self.slots(&step.above), down, rule);
        }
    }

    fn current(&self, chain: &ChainName) -> Option<&Slots> {
        self.changed.get(chain).or_else(|| self.base.get(chain))
    }

    fn slots(&mut self, chain: &ChainName) -> &mut Slots {
        let base = self.base;
        self.changed
            .entry(chain.clone())
            .or_insert_with(|| base.get(chain).cloned().unwrap_or_default())
    }
}

/// Whether the chain stays when it is empty: others refer to it by name.
pub fn is_root(chain: &ChainName) -> bool {
    [names::SERVICES, names::NODE_PORTS].contains(&chain.as_str())
}

/// What is there without any Service.
fn roots(settings: &Settings) -> Tree {
    let slots = node_ports(settings).into_iter().enumerate();
    let slots = slots.map(|(i, rule)| (Slot::NodePorts(i), rule)).collect();
    Tree::from([
        (ChainName::new(names::SERVICES), slots),
        (ChainName::new(names::NODE_PORTS), Slots::new()),
    ])
}

/// To the node ports, from the addresses on which they are served.
///
/// Never on loopback: that would need route_localnet, which opens what listens there. The match is on the kind of the
/// address, so that one that is given to the node later is served at once.
fn node_ports(settings: &Settings) -> Vec<Rule> {
    let loopback = match settings.family {
        Family::V4 => AddrMask {
            addr: IpAddr::from([127, 0, 0, 0]),
            mask: IpAddr::from([255, 0, 0, 0]),
        },
        Family::V6 => AddrMask::host(Ipv6Addr::LOCALHOST.into()),
    };
    let jump = |matches: [Match; 2]| {
        let to = ChainName::new(names::NODE_PORTS);
        Rule::new(matches, Target::Jump(to))
    };
    let everywhere = |ranges: &Vec<AddrMask>| ranges.iter().any(|r| r.mask.is_unspecified());
    let ranges = match &settings.node_port_ranges {
        Some(ranges) if !everywhere(ranges) => ranges,
        _ => {
            return vec![jump([
                Match::NotDestination(loopback),
                Match::DestinationIsLocal,
            ])];
        }
    };
    let mut rules = Vec::new();
    if ranges.iter().any(|range| range.contains(loopback.addr)) {
        rules.push(Rule::new([Match::Destination(loopback)], Target::Return));
    }
    let elsewhere = ranges.iter().filter(|range| !loopback.contains(range.addr));
    rules.extend(
        elsewhere.map(|range| jump([Match::Destination(*range), Match::DestinationIsLocal])),
    );
    rules
}

/// The cluster IPs among the frontends of a Service, each once, as the frontend of one of its ports.
fn cluster_ips(entries: &[Entry]) -> Vec<Frontend> {
    let mut seen = BTreeSet::new();
    let frontends = entries.iter().map(|entry| entry.frontend);
    frontends
        .filter(|f| f.kind == FrontendKind::ClusterIp && seen.insert(f.addr))
        .collect()
}

/// Behind all ports of a cluster IP: what comes here asks for one that it does not have.
fn unknown_port(service: &ObjectKey, frontend: &Frontend) -> (Slot, Rule) {
    let addr = match frontend.addr {
        FrontendAddr::Ip(ip) => ip,
        // No cluster IP; it would match nothing.
        FrontendAddr::AnyNodeAddress(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let slot = Slot::UnknownPort {
        addr,
        service: service.clone(),
    };
    let to = ChainName::new(names::UNKNOWN_PORT);
    let matches = [Match::Destination(AddrMask::host(addr))];
    (slot, Rule::new(matches, Target::Jump(to)))
}

/// The way to a frontend, from the root.
fn way(frontend: &Frontend, family: Family) -> Vec<Step> {
    match frontend.addr {
        FrontendAddr::Ip(ip) => {
            let byte = lowest_byte(ip);
            let (low, high) = (byte & 0x0f, byte >> 4);
            let bucket = names::address_bucket(low);
            vec![
                Step {
                    above: ChainName::new(names::SERVICES),
                    matches: vec![bits(low, 0x0f, family)],
                    below: bucket.clone(),
                },
                Step {
                    above: bucket,
                    matches: vec![bits(byte & 0xf0, 0xf0, family)],
                    below: names::address_leaf(low, high),
                },
            ]
        }
        FrontendAddr::AnyNodeAddress(_) => {
            let protocol = frontend.protocol;
            let first = frontend.port - frontend.port % PORTS_PER_BUCKET;
            let last = first + (PORTS_PER_BUCKET - 1);
            let ports = Match::DestinationPorts(protocol, first, last);
            vec![Step {
                above: ChainName::new(names::NODE_PORTS),
                matches: vec![Match::Protocol(protocol), ports],
                below: names::port_bucket(protocol, first),
            }]
        }
    }
}

fn slot(service: &ObjectKey, sequence: usize, frontend: &Frontend) -> Slot {
    Slot::Frontend {
        addr: frontend.addr,
        port: frontend.port,
        protocol: frontend.protocol,
        service: service.clone(),
        sequence,
    }
}

/// The rule of a leaf.
fn rule(entry: &Entry) -> Rule {
    let Frontend {
        addr,
        port,
        protocol,
        ..
    } = entry.frontend;
    let mut matches = Vec::with_capacity(3);
    if let FrontendAddr::Ip(ip) = addr {
        matches.push(Match::Destination(AddrMask::host(ip)));
    }
    matches.push(Match::Protocol(protocol));
    matches.push(Match::DestinationPorts(protocol, port, port));
    Rule::new(matches, Target::Jump(entry.chain.clone())).comment(&entry.owner)
}

fn put(slots: &mut Slots, slot: Slot, rule: Option<Rule>) {
    match rule {
        Some(rule) => slots.insert(slot, rule),
        None => slots.remove(&slot),
    };
}

/// The destination has these bits in the lowest byte.
fn bits(value: u8, mask: u8, family: Family) -> Match {
    let wide = |byte: u8| match family {
        Family::V4 => IpAddr::from([0, 0, 0, byte]),
        Family::V6 => IpAddr::from(u128::from(byte).to_be_bytes()),
    };
    Match::Destination(AddrMask {
        addr: wide(value),
        mask: wide(mask),
    })
}

fn lowest_byte(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    }
}
