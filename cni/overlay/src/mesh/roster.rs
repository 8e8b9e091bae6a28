//! Who takes part, kept up to date Node by Node: one that changes costs its own claims and those that quarrel with it,
//! however many others there are. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use seaway_model::{Family, Node};

use super::{Member, Problem, member};

#[cfg(test)]
mod tests;

/// A Node that takes part, or what keeps it out.
pub type Verdict = Result<Member, Problem>;

/// The other Nodes, sorted out. When two of them claim the same thing, this node keeps its own, and among peers the first
/// by name does, so that every node decides alike.
#[derive(Debug, Clone)]
pub struct Roster {
    own: Member,
    verdicts: BTreeMap<Arc<str>, Verdict>,
    /// What those claim that would take part if nobody else claimed it.
    candidates: BTreeMap<Arc<str>, Member>,
    addresses: BTreeMap<IpAddr, BTreeSet<Arc<str>>>,
    cidrs: Cidrs,
    /// How many peers are reached by each family.
    families: BTreeMap<Family, usize>,
}

impl Roster {
    /// Of a cluster, as seen from a node of it.
    pub fn new(own: Member, nodes: &BTreeMap<Arc<str>, Node>) -> Self {
        let mut roster = Self {
            own,
            verdicts: BTreeMap::new(),
            candidates: BTreeMap::new(),
            addresses: BTreeMap::new(),
            cidrs: Cidrs::default(),
            families: BTreeMap::new(),
        };
        // In the order of their names nobody is judged twice.
        for (name, node) in nodes {
            roster.change(name, Some(node));
        }
        roster
    }

    /// This node.
    pub fn own(&self) -> &Member {
        &self.own
    }

    /// What is known of a Node that is there, and is not this one.
    pub fn verdict(&self, name: &str) -> Option<&Verdict> {
        self.verdicts.get(name)
    }

    /// Those that take part, by name.
    pub fn peers(&self) -> impl Iterator<Item = &Member> {
        self.verdicts.values().filter_map(|one| one.as_ref().ok())
    }

    /// What keeps the others out, by name.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.verdicts.values().filter_map(|one| one.as_ref().err())
    }

    /// How many those are.
    pub fn left_out(&self) -> usize {
        self.verdicts.len() - self.families.values().sum::<usize>()
    }

    /// The families by which peers are reached.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        self.families.keys().copied()
    }

    /// Takes in a Node as it is now, `None` if it is gone. Answers what was known before of those of which something else is
    /// known now: it, and those that quarrel with it.
    pub fn change(
        &mut self,
        name: &Arc<str>,
        node: Option<&Node>,
    ) -> BTreeMap<Arc<str>, Option<Verdict>> {
        let mut changed = BTreeMap::new();
        if *name == self.own.name {
            return changed;
        }
        if let Some(candidate) = self.candidates.remove(name) {
            self.claim(&candidate, false);
        }
        let unfit = match node.map(member) {
            None => None,
            Some(Err(problem)) => Some(problem),
            Some(Ok(candidate)) if self.own.ends(&candidate).is_none() => {
                Some(Problem::NoAddress { node: name.clone() })
            }
            Some(Ok(candidate)) => {
                self.claim(&candidate, true);
                self.candidates.insert(name.clone(), candidate);
                None
            }
        };
        // A verdict depends on those of earlier names alone.
        let mut due = BTreeSet::from([name.clone()]);
        while let Some(name) = due.pop_first() {
            let now = match (self.candidates.get(&name), &unfit) {
                (Some(candidate), _) => Some(self.judge(candidate)),
                (None, Some(problem)) => Some(Err(problem.clone())),
                (None, None) => None,
            };
            let before = self.set(&name, now.clone());
            if before == now {
                continue;
            }
            let members = [&before, &now].map(|one| one.as_ref().and_then(|v| v.as_ref().ok()));
            if members[0] != members[1] {
                for member in members.into_iter().flatten() {
                    due.extend(self.rivals(member).filter(|rival| *rival > name));
                }
            }
            changed.insert(name, before);
        }
        changed
    }

    fn set(&mut self, name: &Arc<str>, now: Option<Verdict>) -> Option<Verdict> {
        if let Some(family) = now.as_ref().and_then(|now| self.family(now)) {
            *self.families.entry(family).or_default() += 1;
        }
        let before = match now {
            Some(now) => self.verdicts.insert(name.clone(), now),
            None => self.verdicts.remove(name),
        };
        if let Some(family) = before.as_ref().and_then(|before| self.family(before))
            && let Some(count) = self.families.get_mut(&family)
        {
            *count -= 1;
            if *count == 0 {
                self.families.remove(&family);
            }
        }
        before
    }

    /// By which a peer is reached.
    fn family(&self, verdict: &Verdict) -> Option<Family> {
        let (ours, _) = self.own.ends(verdict.as_ref().ok()?)?;
        Some(Family::of(ours))
    }

    fn claim(&mut self, member: &Member, holds: bool) {
        for address in member.addresses() {
            note(&mut self.addresses, address, &member.name, holds);
        }
        for cidr in &member.pod_cidrs {
            self.cidrs.note(*cidr, &member.name, holds);
        }
    }

    /// Whether somebody else has a part of what a candidate claims: this node, or a peer of an earlier name.
    fn judge(&self, candidate: &Member) -> Verdict {
        let node = &candidate.name;
        for address in candidate.addresses() {
            let other = if self.own.addresses().any(|own| own == address) {
                Some(&self.own.name)
            } else {
                let all = self.addresses.get(&address);
                all.and_then(|all| self.earlier(all, node))
            };
            if let Some(other) = other {
                return Err(Problem::SameAddress {
                    node: node.clone(),
                    other: other.clone(),
                    address,
                });
            }
        }
        for &cidr in &candidate.pod_cidrs {
            let of_peers = self.cidrs.overlapping(cidr);
            let of_peers =
                of_peers.filter_map(|(there, all)| Some((there, self.earlier(all, node)?)));
            let own = self.own.pod_cidrs.iter().map(|own| (*own, &self.own.name));
            let own = own.filter(|(own, _)| overlap(*own, cidr));
            if let Some((other_cidr, other)) = own.chain(of_peers).max() {
                return Err(Problem::Overlap {
                    node: node.clone(),
                    cidr,
                    other: other.clone(),
                    other_cidr,
                });
            }
        }
        match self.covers(candidate).or_else(|| self.covered(candidate)) {
            Some(problem) => Err(problem),
            None => Ok(candidate.clone()),
        }
    }

    /// Whether a pod CIDR of a candidate has an address of somebody in it who is there before.
    fn covers(&self, candidate: &Member) -> Option<Problem> {
        let node = &candidate.name;
        candidate.pod_cidrs.iter().find_map(|&cidr| {
            let own = self.own.addresses().find(|ip| cidr.contains(*ip));
            let of_peers = self
                .inside(cidr)
                .find_map(|(address, all)| Some((address, self.earlier(all, node)?)));
            let (address, covered) = own.map(|own| (own, &self.own.name)).or(of_peers)?;
            Some(Problem::Covers {
                node: node.clone(),
                cidr,
                of: node.clone(),
                address,
                covered: covered.clone(),
            })
        })
    }

    /// Whether an address of a candidate is in a pod CIDR of somebody who is there before.
    fn covered(&self, candidate: &Member) -> Option<Problem> {
        let node = &candidate.name;
        candidate.addresses().find_map(|address| {
            let mut own = self.own.pod_cidrs.iter();
            let own = own.find(|cidr| cidr.contains(address));
            let mut around = self.cidrs.overlapping(address.into());
            let of_peers = around.find_map(|(cidr, all)| Some((cidr, self.earlier(all, node)?)));
            let (cidr, of) = own.map(|own| (*own, &self.own.name)).or(of_peers)?;
            Some(Problem::Covers {
                node: node.clone(),
                cidr,
                of: of.clone(),
                address,
                covered: node.clone(),
            })
        })
    }

    /// Who claims which address of a CIDR.
    fn inside(&self, cidr: IpNetwork) -> impl Iterator<Item = (IpAddr, &BTreeSet<Arc<str>>)> {
        let addresses = self.addresses.range(cidr.network()..=cidr.broadcast());
        addresses.map(|(address, names)| (*address, names))
    }

    /// The first by name, before `node`, of those who claim something and take part.
    fn earlier<'a>(&self, all: &'a BTreeSet<Arc<str>>, node: &Arc<str>) -> Option<&'a Arc<str>> {
        let mut before = all.iter().take_while(|other| *other < node);
        before.find(|other| self.takes_part(other))
    }

    fn takes_part(&self, name: &str) -> bool {
        self.verdicts.get(name).is_some_and(Result::is_ok)
    }

    /// Who claims a part of what a member has, itself among them.
    fn rivals(&self, member: &Member) -> impl Iterator<Item = Arc<str>> {
        let of_addresses = member
            .addresses()
            .filter_map(|address| self.addresses.get(&address));
        let of_cidrs = member
            .pod_cidrs
            .iter()
            .flat_map(|cidr| self.cidrs.overlapping(*cidr).map(|(_, names)| names));
        let covered = member
            .pod_cidrs
            .iter()
            .flat_map(|cidr| self.inside(*cidr).map(|(_, names)| names));
        let covering = member.addresses().flat_map(|address| {
            self.cidrs
                .overlapping(address.into())
                .map(|(_, names)| names)
        });
        let all = of_addresses.chain(of_cidrs).chain(covered).chain(covering);
        all.flatten().cloned()
    }
}

/// Who claims which pod CIDR.
#[derive(Debug, Clone, Default)]
struct Cidrs {
    names: BTreeMap<IpNetwork, BTreeSet<Arc<str>>>,
    /// How many of each length there are: few lengths, so that those around one are found by asking for each.
    lengths: BTreeMap<(bool, u8), usize>,
}

impl Cidrs {
    fn note(&mut self, cidr: IpNetwork, name: &Arc<str>, holds: bool) {
        let cidr = canonical(cidr);
        let before = self.names.len();
        note(&mut self.names, cidr, name, holds);
        let length = (cidr.is_ipv4(), cidr.prefix());
        if self.names.len() > before {
            *self.lengths.entry(length).or_default() += 1;
        } else if self.names.len() < before
            && let Some(count) = self.lengths.get_mut(&length)
        {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&length);
            }
        }
    }

    /// Two CIDRs that overlap are one inside of the other.
    fn overlapping(
        &self,
        cidr: IpNetwork,
    ) -> impl Iterator<Item = (IpNetwork, &BTreeSet<Arc<str>>)> {
        let cidr = canonical(cidr);
        let family = cidr.is_ipv4();
        let shorter = self.lengths.range((family, 0)..(family, cidr.prefix()));
        let around = shorter.filter_map(move |((_, length), _)| {
            let around = canonical(IpNetwork::new(cidr.network(), *length).ok()?);
            Some((around, self.names.get(&around)?))
        });
        let inside = self.names.range(cidr..).take_while(move |(other, _)| {
            other.is_ipv4() == family && other.network() <= cidr.broadcast()
        });
        around.chain(inside.map(|(other, names)| (*other, names)))
    }
}

fn note<K: Ord>(index: &mut BTreeMap<K, BTreeSet<Arc<str>>>, key: K, name: &Arc<str>, holds: bool) {
    if holds {
        index.entry(key).or_default().insert(name.clone());
    } else if let Some(names) = index.get_mut(&key) {
        names.remove(name);
        if names.is_empty() {
            index.remove(&key);
        }
    }
}

fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

/// Without host bits, as the kernel shows it.
pub fn canonical(cidr: IpNetwork) -> IpNetwork {
    IpNetwork::new(cidr.network(), cidr.prefix()).unwrap_or(cidr)
}
