//! The UDP frontends of the node: where each one's flows may go, and which have changed so that some may not any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use seaway_kernel::conntrack::{self, Filter, UDP};
use seaway_model::{Change, Desired, Family, FrontendAddr, ObjectKey, Protocol, ServiceRules};

use super::stale::NodeAddresses;

#[cfg(test)]
mod tests;

/// Up to this many frontends of a family each get a listing of their own: the kernel walks the table for each, but
/// copies only what is asked for. Beyond, one listing of all UDP entries is cheaper.
const NARROW: usize = 4;

/// Address and UDP port of a frontend.
pub(super) type At = (FrontendAddr, u16);

/// Sorted.
type Endpoints = Arc<[SocketAddr]>;

/// The UDP frontends, kept in step with what is programmed. Pure; a change costs what it touches.
#[derive(Debug, Default)]
pub struct Frontends {
    /// Who claims it: the smallest key has it, as in [`Desired::find`].
    claims: HashMap<At, BTreeMap<ObjectKey, Endpoints>>,
    services: HashMap<ObjectKey, Vec<At>>,
    /// Frontends that are no more, with the endpoints they had, until their flows have been looked for.
    gone: HashMap<At, BTreeSet<SocketAddr>>,
    due: Due,
}

/// Frontends whose flows have to be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Due {
    #[default]
    Nothing,
    These(BTreeSet<(FrontendAddr, u16)>),
    /// At start, and after the rules have been repaired: nobody knows what went on meanwhile.
    Everything,
}

/// What is at a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A frontend, and the endpoints that its flows may go to.
    Live(&'a [SocketAddr]),
    /// What was one, and the endpoints that its flows went to.
    Gone(&'a BTreeSet<SocketAddr>),
}

impl Frontends {
    /// Takes in what has been programmed.
    pub fn update(&mut self, desired: &Desired, change: &Change) {
        match change {
            Change::Services(keys) => {
                for key in keys {
                    self.replace(key, desired.services.get(key));
                }
            }
            Change::Full => {
                let known: BTreeSet<ObjectKey> = self.services.keys().cloned().collect();
                for key in known.iter().chain(desired.services.keys()) {
                    self.replace(key, desired.services.get(key));
                }
                if !self.claims.is_empty() || !self.gone.is_empty() {
                    self.due = Due::Everything;
                }
            }
        }
    }

    /// What has to be looked at since this was asked last.
    pub fn take_due(&mut self) -> Due {
        std::mem::take(&mut self.due)
    }

    /// The look failed: what was due is due again.
    pub fn put_back(&mut self, due: Due) {
        self.due = match (std::mem::take(&mut self.due), due) {
            (Due::Everything, _) | (_, Due::Everything) => Due::Everything,
            (Due::Nothing, other) | (other, Due::Nothing) => other,
            (Due::These(mut some), Due::These(more)) => {
                some.extend(more);
                Due::These(some)
            }
        };
    }

    /// The look is done: frontends that were gone by then need not be remembered.
    pub fn looked_at(&mut self, due: &Due) {
        let again = match &self.due {
            Due::Nothing => BTreeSet::new(),
            Due::These(again) => again.clone(),
            Due::Everything => return,
        };
        self.gone.retain(|at, _| {
            again.contains(at)
                || match due {
                    Due::Nothing => true,
                    Due::These(done) => !done.contains(at),
                    Due::Everything => false,
                }
        });
    }

    /// The listings that show every flow of what is due.
    pub fn listings(&self, due: &Due) -> Vec<Filter> {
        let all = |family| Filter::new(kernel_family(family), UDP);
        let families = [Family::V4, Family::V6].into_iter();
        match due {
            Due::Nothing => Vec::new(),
            Due::Everything => families
                .filter(|family| {
                    let mut known = self.claims.keys().chain(self.gone.keys());
                    known.any(|(addr, _)| addr.family() == *family)
                })
                .map(all)
                .collect(),
            Due::These(frontends) => families
                .flat_map(|family| {
                    let of_family = frontends.iter().filter(|(addr, _)| addr.family() == family);
                    match of_family.clone().count() {
                        0..=NARROW => of_family.map(narrow).collect(),
                        _ => vec![all(family)],
                    }
                })
                .collect(),
        }
    }

    /// Whether any frontend is at the node's own addresses, so that these have to be known.
    pub fn has_node_ports(&self) -> bool {
        let mut known = self.claims.keys().chain(self.gone.keys());
        known.any(|(addr, _)| matches!(addr, FrontendAddr::AnyNodeAddress(_)))
    }

    /// What is at this destination. An exact address wins over "any node address", and what is over what was.
    pub(super) fn find(&self, to: SocketAddr, node: &NodeAddresses) -> Option<Found<'_>> {
        let exact = (FrontendAddr::Ip(to.ip()), to.port());
        let any_node = node
            .contains(&to.ip())
            .then(|| (FrontendAddr::AnyNodeAddress(Family::of(to.ip())), to.port()));
        let candidates = || std::iter::once(&exact).chain(&any_node);
        candidates()
            .find_map(|at| self.owner(at))
            .map(|endpoints| Found::Live(endpoints))
            .or_else(|| {
                candidates()
                    .find_map(|at| self.gone.get(at))
                    .map(Found::Gone)
            })
    }

    fn owner(&self, at: &At) -> Option<&Endpoints> {
        let (_, endpoints) = self.claims.get(at)?.first_key_value()?;
        Some(endpoints)
    }

    fn replace(&mut self, key: &ObjectKey, rules: Option<&ServiceRules>) {
        let before = self.services.remove(key).unwrap_or_default();
        let after = rules.map(claims).unwrap_or_default();
        let touched: BTreeSet<At> = before.into_iter().chain(after.keys().copied()).collect();
        for at in touched {
            let old = self.owner(&at).cloned();
            match after.get(&at) {
                Some(endpoints) => {
                    let claims = self.claims.entry(at).or_default();
                    claims.insert(key.clone(), endpoints.clone());
                }
                None => {
                    if let Some(claims) = self.claims.get_mut(&at) {
                        claims.remove(key);
                        if claims.is_empty() {
                            self.claims.remove(&at);
                        }
                    }
                }
            }
            let new = self.owner(&at).cloned();
            if self.some_flow_may_be_stale(at, old.as_deref(), new.as_deref()) {
                self.put_back(Due::These(BTreeSet::from([at])));
            }
        }
        if !after.is_empty() {
            self.services
                .insert(key.clone(), after.into_keys().collect());
        }
    }

    /// Whether a flow that was as it should be may not be so any more, now that the frontend has become `new`.
    fn some_flow_may_be_stale(
        &mut self,
        at: At,
        old: Option<&[SocketAddr]>,
        new: Option<&[SocketAddr]>,
    ) -> bool {
        match (old, new) {
            (None, None) => false,
            (Some([]), None) => false,
            (Some(old), None) => {
                self.gone.entry(at).or_default().extend(old);
                true
            }
            // Flows that began before the frontend, untranslated; and those of its predecessor.
            (None, Some(new)) => self.gone.remove(&at).is_some() || !new.is_empty(),
            (Some(old), Some(new)) => {
                (old.is_empty() && !new.is_empty())
                    || old.iter().any(|addr| new.binary_search(addr).is_err())
            }
        }
    }
}

/// The UDP frontends of a Service with their endpoints. Of two equal ones the first has it.
fn claims(rules: &ServiceRules) -> BTreeMap<At, Endpoints> {
    let mut claims = BTreeMap::new();
    for rule in rules.ports.iter().filter(|r| r.protocol == Protocol::Udp) {
        let chosen = rule.cluster.iter().chain(&rule.local).map(|b| b.addr);
        let endpoints: BTreeSet<SocketAddr> =
            chosen.chain(rule.lingering.iter().copied()).collect();
        let endpoints: Endpoints = endpoints.into_iter().collect();
        for frontend in &rule.frontends {
            claims
                .entry((frontend.addr, frontend.port))
                .or_insert_with(|| endpoints.clone());
        }
    }
    claims
}

fn narrow(&(addr, port): &At) -> Filter {
    let destination: Option<IpAddr> = match addr {
        FrontendAddr::Ip(ip) => Some(ip),
        FrontendAddr::AnyNodeAddress(_) => None,
    };
    Filter {
        destination,
        destination_port: Some(port),
        ..Filter::new(kernel_family(addr.family()), UDP)
    }
}

fn kernel_family(family: Family) -> conntrack::Family {
    match family {
        Family::V4 => conntrack::Family::V4,
        Family::V6 => conntrack::Family::V6,
    }
}
