//! Desired against image: which entries to write and delete, in an order that never shows half of a Service.
//!
//! New backend sets first, then the frontends that point to them, then frontends that go, then sets that nothing points
//! to any more. A set is never changed once a frontend points to it.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use seaway_ebpf_abi::{BackendValue, FrontendKey, FrontendValue};
use seaway_model::{Change, Desired, ObjectKey};

use super::image::{Image, OwnerChanges, Owners};
use super::wanted::{self, Notice, Wanted};

mod display;

pub(super) use display::{backend, frontend, protocol, target};

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    WriteSet {
        set: u32,
        backends: Vec<BackendValue>,
    },
    WriteFrontend {
        key: FrontendKey,
        value: FrontendValue,
    },
    DeleteFrontend {
        key: FrontendKey,
    },
    DeleteSet {
        set: u32,
        slots: u32,
    },
}

/// Everything that an apply does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EbpfPlan {
    /// What has to be done to the kernel besides map entries, one line each; empty while the programs are attached.
    pub(super) activation: Vec<String>,
    pub(super) ops: Vec<Op>,
    pub(super) owners: OwnerChanges,
    pub(super) notices: Vec<Notice>,
}

/// Plans a change.
pub(super) fn plan(
    image: &Image,
    owners: &Owners,
    desired: &Desired,
    change: &Change,
    cluster_cidrs: &[IpNetwork],
) -> EbpfPlan {
    let mut planner = Planner {
        image,
        known: owners,
        owners: OwnerChanges::default(),
        last_set: image.sets.keys().next_back().copied().unwrap_or(0),
        writes: Vec::new(),
        flips: Vec::new(),
        removals: BTreeSet::new(),
        used: BTreeSet::new(),
        released: BTreeSet::new(),
        notices: Vec::new(),
    };
    match change {
        Change::Services(keys) if !owners.contested => {
            let services: Vec<_> = keys
                .iter()
                .map(|key| (key, planner.wanted(desired, key, cluster_cidrs)))
                .collect();
            // Leave first, come then: an address may pass from one Service to another in one change.
            for (key, wanted) in &services {
                planner.leave(key, wanted);
            }
            for (key, wanted) in services {
                planner.come(key, wanted);
            }
            if planner.owners.contested {
                return plan(image, owners, desired, &Change::Full, cluster_cidrs);
            }
        }
        // Ownership is worked out anew: it is not known after a start.
        Change::Services(_) | Change::Full => {
            planner.owners.anew = true;
            for key in desired.services.keys() {
                let wanted = planner.wanted(desired, key, cluster_cidrs);
                planner.come(key, wanted);
            }
            planner.remove_unowned();
            planner.released = image.sets.keys().copied().collect();
        }
    }
    planner.finish()
}

struct Planner<'a> {
    image: &'a Image,
    known: &'a Owners,
    owners: OwnerChanges,
    /// The last id given to a set.
    last_set: u32,
    writes: Vec<Op>,
    flips: Vec<Op>,
    removals: BTreeSet<FrontendKey>,
    /// Sets of the image that a frontend goes on pointing to.
    used: BTreeSet<u32>,
    /// Sets of the image that a frontend pointed to.
    released: BTreeSet<u32>,
    notices: Vec<Notice>,
}

impl Planner<'_> {
    fn wanted(
        &mut self,
        desired: &Desired,
        key: &ObjectKey,
        cluster_cidrs: &[IpNetwork],
    ) -> BTreeMap<FrontendKey, Wanted> {
        desired
            .services
            .get(key)
            .map_or_else(BTreeMap::new, |rules| {
                wanted::of_service(key, rules, cluster_cidrs, &mut self.notices)
            })
    }

    /// Lets go of what a Service had and does not want any more.
    fn leave(&mut self, service: &ObjectKey, wanted: &BTreeMap<FrontendKey, Wanted>) {
        let before = self.known.owned.get(service).into_iter().flatten();
        for gone in before.filter(|key| !wanted.contains_key(key)) {
            self.owners.of.insert(*gone, None);
            self.remove(gone);
        }
    }

    /// The sets that frontends of a Service point to, by what is in them. Frontends share sets within a Service, never
    /// across: so a plan that touches a Service knows everybody who points to its sets.
    fn own_sets(
        &self,
        service: &ObjectKey,
        wanted: &BTreeMap<FrontendKey, Wanted>,
    ) -> BTreeMap<Vec<BackendValue>, u32> {
        let mut sets = BTreeMap::new();
        for key in wanted.keys() {
            let own = if self.owners.anew {
                !self.owners.of.contains_key(key)
            } else {
                self.known.of.get(key) == Some(service)
            };
            let Some(value) = self.image.frontends.get(key).filter(|_| own) else {
                continue;
            };
            for (id, count) in [
                (value.near_set, value.near_count),
                (value.far_set, value.far_count),
            ] {
                if let Some(set) = self.image.set(id, count)
                    && !self.used.contains(&id)
                {
                    sets.entry(set.to_vec()).or_insert(id);
                }
            }
        }
        sets
    }

    /// Brings in what a Service wants.
    fn come(&mut self, service: &ObjectKey, wanted: BTreeMap<FrontendKey, Wanted>) {
        let mut sets = self.own_sets(service, &wanted);
        for (key, wanted) in wanted {
            match self.owners.owner(self.known, &key) {
                Some(other) if other != service => {
                    self.notices
                        .push(format!("{service}: {} belongs to {other}", frontend(&key)));
                    self.owners.contested = true;
                    continue;
                }
                Some(_) => {}
                None => _ = self.owners.of.insert(key, Some(service.clone())),
            }
            self.removals.remove(&key);
            let value = FrontendValue {
                near_set: self.set_for(&wanted.near, &mut sets),
                near_count: count(&wanted.near),
                far_set: self.set_for(&wanted.far, &mut sets),
                far_count: count(&wanted.far),
                kind: wanted.kind,
                flags: wanted.flags,
                pad: [0; 2],
            };
            let current = self.image.frontends.get(&key);
            self.used.extend([value.near_set, value.far_set]);
            if let Some(current) = current {
                self.released.extend([current.near_set, current.far_set]);
            }
            if current != Some(&value) {
                self.flips.push(Op::WriteFrontend { key, value });
            }
        }
    }

    /// The id of a set with these backends: one that a frontend of the Service points to, or a new one.
    fn set_for(
        &mut self,
        backends: &[BackendValue],
        sets: &mut BTreeMap<Vec<BackendValue>, u32>,
    ) -> u32 {
        if backends.is_empty() {
            return 0;
        }
        if let Some(id) = sets.get(backends) {
            return *id;
        }
        let set = self.image.free_set(self.last_set);
        self.last_set = set;
        sets.insert(backends.to_vec(), set);
        self.writes.push(Op::WriteSet {
            set,
            backends: backends.to_vec(),
        });
        set
    }

    fn remove(&mut self, key: &FrontendKey) {
        if let Some(value) = self.image.frontends.get(key) {
            self.released.extend([value.near_set, value.far_set]);
            self.removals.insert(*key);
        }
    }

    fn remove_unowned(&mut self) {
        for key in self.image.frontends.keys() {
            if self.owners.owner(self.known, key).is_none() {
                self.remove(key);
            }
        }
    }

    fn finish(self) -> EbpfPlan {
        let gone = self.released.difference(&self.used).filter_map(|set| {
            let slots = u32::try_from(self.image.sets.get(set)?.len()).unwrap_or(u32::MAX);
            Some(Op::DeleteSet { set: *set, slots })
        });
        let gone: Vec<Op> = gone.collect();
        let mut ops = self.writes;
        ops.extend(self.flips);
        let removals = self.removals.into_iter();
        ops.extend(removals.map(|key| Op::DeleteFrontend { key }));
        ops.extend(gone);
        EbpfPlan {
            activation: Vec::new(),
            ops,
            owners: self.owners,
            notices: self.notices,
        }
    }
}

fn count(backends: &[BackendValue]) -> u32 {
    u32::try_from(backends.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
