//! From the packet's destination to what becomes of it, in steps that do not grow with the number of Services.
//!
//! ```text
//! nat     SERVICES ─ lowest 4 bits of the address ► SVCS-n ─ next 4 ► SVCS-nm ─ address, protocol, port ─┬► endpoint
//!            │                                                                                          └► EXT-… SVC-…
//!            └────── an address of this node ► NODEPORTS ─ range of ports ► NPS-TCP-… ─ port ► EXT-…
//!
//! filter  CLUSTER-IPS ─ lowest 4 bits ► CIPS-n ─ next 4 ► CIPS-nm ─ cluster IP, any port ► UNKNOWN-PORT
//! ```
//!
//! Only chains with something in them exist: with one Service there is one of each kind. A change touches one leaf,
//! and what is above it only when the leaf comes or goes. The ports that no Service has are refused by a tree of their
//! own, so that a change of endpoints does not touch a table with a rule for each cluster IP: see
//! [`Settings::unknown_ports`].
//!
//! Cluster IPs are masqueraded for whom is no pod: replies to clients outside of the cluster must come back through
//! this node. The mark for that is set in front of the tree and taken back behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use seaway_model::{Family, Frontend, FrontendAddr, FrontendKind, ObjectKey, Protocol};

use super::names;
use super::plan::Settings;
use super::rule::{AddrMask, ChainId, ChainName, Match, Rule, Rules, Table, Target};
use super::service::{Decision, Entry, shares};

#[cfg(test)]
mod tests;

/// Ports in one range below NODEPORTS: the default range of 2,768 ports makes 22 of them.
const PORTS_PER_BUCKET: u16 = 128;

/// Where a rule stands in a dispatch chain. The order decides between two Services that claim the same frontend: the
/// smaller key, then the earlier frontend, as [`seaway_model::Desired::find`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// Marks for the masquerade what does not come from a pod: in front of everything.
    Mark,
    /// To the chain one level down.
    Down(ChainName),
    /// To one of the endpoints, or to a chain of the Service.
    Frontend {
        addr: FrontendAddr,
        port: u16,
        protocol: Protocol,
        service: ObjectKey,
        sequence: usize,
    },
    /// A cluster IP of a Service, for the ports that it does not have.
    UnknownPort { addr: IpAddr, service: ObjectKey },
    /// What was marked and is for no frontend.
    Unmark,
    /// To the node ports: behind all exact addresses.
    NodePorts(usize),
    /// To the ports that cluster IPs do not have, where nat is the place for them.
    UnknownPorts,
}

/// The rules of a dispatch chain in their order.
pub type Slots = BTreeMap<Slot, Rules>;

/// All dispatch chains of a family.
pub type Tree = BTreeMap<ChainId, Slots>;

/// Changes to a tree that is left as it is; what they cost does not depend on its size.
#[derive(Debug)]
pub struct TreeEdit<'a> {
    base: &'a Tree,
    family: Family,
    comments: bool,
    unknown_ports: ByAddress,
    changed: Tree,
}

/// One step of the way: packets in `above` that match go to `below`.
struct Step {
    above: ChainId,
    matches: Vec<Match>,
    below: ChainId,
}

impl<'a> TreeEdit<'a> {
    /// Starts from `base`, which is empty before the first sync.
    pub fn new(base: &'a Tree, settings: &Settings) -> Self {
        let mut edit = Self {
            base,
            family: settings.family,
            comments: settings.comments,
            unknown_ports: unknown_ports(settings),
            changed: Tree::new(),
        };
        if base.is_empty() {
            edit.changed = roots(settings);
        }
        edit
    }

    /// Puts the entries of a Service in the place of those that it had, with the chains that lead to them and without
    /// those that then lead nowhere.
    pub fn replace(&mut self, service: &ObjectKey, before: &[Entry], after: &[Entry]) {
        for sequence in 0..before.len().max(after.len()) {
            let (old, new) = (before.get(sequence), after.get(sequence));
            if old == new {
                continue;
            }
            if let Some(entry) = old {
                self.frontend(service, sequence, &entry.frontend, None);
            }
            if let Some(entry) = new {
                let rules = rules(entry, self.comments);
                self.frontend(service, sequence, &entry.frontend, Some(rules));
            }
        }
        let (old, new) = (cluster_ips(before), cluster_ips(after));
        for addr in new.difference(&old) {
            let to = ChainName::new(names::UNKNOWN_PORT);
            let matches = [Match::Destination(AddrMask::host(*addr))];
            let rule = Rule::new(matches, Target::Jump(to));
            self.unknown_port(service, *addr, Some([rule].into()));
        }
        for addr in old.difference(&new) {
            self.unknown_port(service, *addr, None);
        }
    }

    /// The chains that were touched, with their content; an empty one that is no root is to go.
    pub fn finish(self) -> Tree {
        self.changed
    }

    fn frontend(
        &mut self,
        service: &ObjectKey,
        sequence: usize,
        frontend: &Frontend,
        rules: Option<Rules>,
    ) {
        let way = match frontend.addr {
            FrontendAddr::Ip(ip) => address_way(&SERVICES, ip, self.family),
            FrontendAddr::AnyNodeAddress(_) => port_way(frontend.protocol, frontend.port),
        };
        let slot = Slot::Frontend {
            addr: frontend.addr,
            port: frontend.port,
            protocol: frontend.protocol,
            service: service.clone(),
            sequence,
        };
        self.set(way, slot, rules);
    }

    fn unknown_port(&mut self, service: &ObjectKey, addr: IpAddr, rules: Option<Rules>) {
        let way = address_way(&self.unknown_ports, addr, self.family);
        let service = service.clone();
        self.set(way, Slot::UnknownPort { addr, service }, rules);
    }

    fn set(&mut self, way: Vec<Step>, slot: Slot, rules: Option<Rules>) {
        let Some(leaf) = way.last() else { return };
        put(self.slots(&leaf.below), slot, rules);
        // Upwards, for as long as a chain came or went.
        for step in way.into_iter().rev() {
            let wanted = !self.slots(&step.below).is_empty();
            let down = Slot::Down(step.below.name.clone());
            if self
                .current(&step.above)
                .is_some_and(|s| s.contains_key(&down))
                == wanted
            {
                return;
            }
            let jump = || Rule::new(step.matches, Target::Jump(step.below.name));
            let rules = wanted.then(|| [jump()].into());
            put(self.slots(&step.above), down, rules);
        }
    }

    fn current(&self, chain: &ChainId) -> Option<&Slots> {
        self.changed.get(chain).or_else(|| self.base.get(chain))
    }

    fn slots(&mut self, chain: &ChainId) -> &mut Slots {
        let base = self.base;
        self.changed
            .entry(chain.clone())
            .or_insert_with(|| base.get(chain).cloned().unwrap_or_default())
    }
}

/// A tree of chains by address.
#[derive(Debug)]
struct ByAddress {
    table: Table,
    root: &'static str,
    /// Of the names of the chains below.
    prefix: &'static str,
}

impl ByAddress {
    fn chain(&self, name: impl Into<Arc<str>>) -> ChainId {
        ChainId {
            table: self.table,
            name: ChainName::new(name),
        }
    }

    fn root(&self) -> ChainId {
        self.chain(self.root)
    }
}

const SERVICES: ByAddress = ByAddress {
    table: Table::Nat,
    root: names::SERVICES,
    prefix: names::SERVICES_BELOW,
};

fn unknown_ports(settings: &Settings) -> ByAddress {
    ByAddress {
        table: settings.unknown_ports,
        root: names::CLUSTER_IPS,
        prefix: names::CLUSTER_IPS_BELOW,
    }
}

/// Whether the chain stays when it is empty: others refer to it by name.
pub fn is_root(chain: &ChainId) -> bool {
    [names::SERVICES, names::NODE_PORTS, names::CLUSTER_IPS].contains(&chain.name.as_str())
}

/// What is there without any Service.
fn roots(settings: &Settings) -> Tree {
    let one = |rule: Rule| Rules::from([rule]);
    let mut slots = Slots::new();
    if let Some(rule) = settings.mark() {
        let unmark = Rule::new([], Target::SetMark(settings.unmark()));
        slots.extend([(Slot::Mark, one(rule)), (Slot::Unmark, one(unmark))]);
    }
    let node_ports = node_ports(settings).into_iter().enumerate();
    slots.extend(node_ports.map(|(i, rule)| (Slot::NodePorts(i), one(rule))));
    let unknown_ports = unknown_ports(settings).root();
    if unknown_ports.table == Table::Nat {
        let jump = Rule::new([], Target::Jump(unknown_ports.name.clone()));
        slots.insert(Slot::UnknownPorts, one(jump));
    }
    Tree::from([
        (SERVICES.root(), slots),
        (SERVICES.chain(names::NODE_PORTS), Slots::new()),
        (unknown_ports, Slots::new()),
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

/// The cluster IPs among the frontends of a Service.
fn cluster_ips(entries: &[Entry]) -> BTreeSet<IpAddr> {
    let frontends = entries.iter().map(|entry| entry.frontend);
    frontends
        .filter_map(|f| match (f.kind, f.addr) {
            (FrontendKind::ClusterIp, FrontendAddr::Ip(ip)) => Some(ip),
            _ => None,
        })
        .collect()
}

/// The way to an address, from the root.
fn address_way(by: &ByAddress, ip: IpAddr, family: Family) -> Vec<Step> {
    let byte = lowest_byte(ip);
    let (low, high) = (byte & 0x0f, byte >> 4);
    let bucket = by.chain(format!("{}-{low:X}", by.prefix));
    vec![
        Step {
            above: by.root(),
            matches: vec![bits(low, 0x0f, family)],
            below: bucket.clone(),
        },
        Step {
            above: bucket,
            matches: vec![bits(byte & 0xf0, 0xf0, family)],
            below: by.chain(format!("{}-{low:X}{high:X}", by.prefix)),
        },
    ]
}

/// The way to a port of the node.
fn port_way(protocol: Protocol, port: u16) -> Vec<Step> {
    let first = port - port % PORTS_PER_BUCKET;
    let last = first + (PORTS_PER_BUCKET - 1);
    let ports = Match::DestinationPorts(protocol, first, last);
    vec![Step {
        above: ChainId::nat(&ChainName::new(names::NODE_PORTS)),
        matches: vec![Match::Protocol(protocol), ports],
        below: ChainId::nat(&names::port_bucket(protocol, first)),
    }]
}

/// The rules of a frontend in its leaf.
fn rules(entry: &Entry, comments: bool) -> Rules {
    let Frontend {
        addr,
        port,
        protocol,
        ..
    } = entry.frontend;
    let rule = |share: Option<Match>, target| {
        let mut matches = Vec::with_capacity(4);
        if let FrontendAddr::Ip(ip) = addr {
            matches.push(Match::Destination(AddrMask::host(ip)));
        }
        matches.push(Match::Protocol(protocol));
        matches.push(Match::DestinationPorts(protocol, port, port));
        matches.extend(share);
        Rule::new(matches, target)
    };
    let mut rules: Vec<Rule> = match &entry.decision {
        Decision::Chain(chain) => vec![rule(None, Target::Jump(chain.clone()))],
        Decision::Here(backends) => {
            let backends = backends.iter().zip(shares(backends.len()));
            backends
                .map(|(addr, share)| rule(share, Target::Dnat(*addr)))
                .collect()
        }
    };
    if let Some(first) = rules.first_mut().filter(|_| comments) {
        first.comment = Some(entry.owner.clone());
    }
    rules.into()
}

fn put(slots: &mut Slots, slot: Slot, rules: Option<Rules>) {
    match rules {
        Some(rules) => slots.insert(slot, rules),
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
