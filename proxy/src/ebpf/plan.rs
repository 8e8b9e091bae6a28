//! Desired against image: which entries to write and delete, in an order that never shows half of a Service.
//!
//! New backend sets and their Maglev tables first, then the frontends that point to them, then frontends that go, then sets that nothing points
//! to any more. A set is never changed once a frontend points to it. Sets of source ranges are treated alike.

use std::collections::{BTreeMap, BTreeSet};

use seaway_ebpf_abi::frontend::FRONTEND_MAGLEV;
use seaway_ebpf_abi::{BackendValue, FrontendKey, FrontendValue};
use seaway_model::{Change, Desired, DetectLocal, ObjectKey};

use super::image::{Image, OwnerChanges, Owners};
use super::wanted::{self, Notice, Range, Wanted};

mod display;
mod shelf;
mod tables;

pub(super) use display::{backend, frontend, target};
use shelf::{Known, Shelf};
use tables::Tables;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    WriteSet {
        set: u32,
        backends: Vec<BackendValue>,
    },
    /// The Maglev table of a set. Slots of it may be in use already: every slot of it and of the one that it replaces is in
    /// the set.
    WriteTable {
        set: u32,
        made_of: u64,
        seed: u32,
        backends: Vec<BackendValue>,
    },
    WriteRanges {
        ranges: u32,
        list: Vec<Range>,
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
    DeleteTable {
        set: u32,
    },
    DeleteRanges {
        ranges: u32,
        list: Vec<Range>,
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
    (detect_local, seed): (&DetectLocal, u32),
) -> EbpfPlan {
    let mut planner = Planner {
        image,
        known: owners,
        owners: OwnerChanges::default(),
        sets: Shelf::new(&image.sets, owners.last.0),
        ranges: Shelf::new(&image.ranges, owners.last.1),
        tables: Tables::new(&image.tables, seed),
        flips: Vec::new(),
        removals: BTreeSet::new(),
        notices: Vec::new(),
    };
    match change {
        Change::Services(keys) if !owners.contested => {
            let services: Vec<_> = keys
                .iter()
                .map(|key| (key, planner.wanted(desired, key, detect_local)))
                .collect();
            // Leave first, come then: an address may pass from one Service to another in one change.
            for (key, wanted) in &services {
                planner.leave(key, wanted);
            }
            for (key, wanted) in services {
                planner.come(key, wanted);
            }
            if planner.owners.contested {
                return plan(image, owners, desired, &Change::Full, (detect_local, seed));
            }
        }
        // Ownership is worked out anew: it is not known after a start.
        Change::Services(_) | Change::Full => {
            planner.owners.anew = true;
            for key in desired.services.keys() {
                let wanted = planner.wanted(desired, key, detect_local);
                planner.come(key, wanted);
            }
            planner.remove_unowned();
            planner.sets.release_all();
            planner.ranges.release_all();
            planner.tables.release_all();
        }
    }
    planner.finish()
}

struct Planner<'a> {
    image: &'a Image,
    known: &'a Owners,
    owners: OwnerChanges,
    sets: Shelf<'a, BackendValue>,
    ranges: Shelf<'a, Range>,
    tables: Tables<'a>,
    flips: Vec<Op>,
    removals: BTreeSet<FrontendKey>,
    notices: Vec<Notice>,
}

impl Planner<'_> {
    fn wanted(
        &mut self,
        desired: &Desired,
        key: &ObjectKey,
        detect_local: &DetectLocal,
    ) -> BTreeMap<FrontendKey, Wanted> {
        desired
            .services
            .get(key)
            .map_or_else(BTreeMap::new, |rules| {
                wanted::of_service(key, rules, detect_local, &mut self.notices)
            })
    }

    /// Lets go of what a Service had and does not want any more.
    fn leave(&mut self, service: &ObjectKey, wanted: &BTreeMap<FrontendKey, Wanted>) {
        let before = self.known.frontends(service);
        for gone in before.filter(|key| !wanted.contains_key(key)) {
            self.owners.of.insert(*gone, None);
            self.remove(gone);
        }
    }

    /// The lists that frontends of a Service point to, by what is in them. Frontends share lists within a Service, never
    /// across: so a plan that touches a Service knows everybody who points to its lists.
    fn own_lists(
        &self,
        service: &ObjectKey,
        wanted: &BTreeMap<FrontendKey, Wanted>,
    ) -> (Known<BackendValue>, Known<Range>) {
        let (mut sets, mut ranges) = (Known::new(), Known::new());
        for key in wanted.keys() {
            let own = if self.owners.anew {
                !self.owners.of.contains_key(key)
            } else {
                self.known.of.get(key) == Some(service)
            };
            let Some(value) = self.image.frontends.get(key).filter(|_| own) else {
                continue;
            };
            self.sets
                .offer(value.near_set, Some(value.near_count), &mut sets);
            self.sets
                .offer(value.far_set, Some(value.far_count), &mut sets);
            self.ranges.offer(value.ranges, None, &mut ranges);
        }
        (sets, ranges)
    }

    /// Brings in what a Service wants.
    fn come(&mut self, service: &ObjectKey, wanted: BTreeMap<FrontendKey, Wanted>) {
        let (mut sets, mut ranges) = self.own_lists(service, &wanted);
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
            let affinity = wanted.affinity;
            let value = FrontendValue {
                near_set: self.sets.id_of(&wanted.near, &mut sets),
                near_count: count(&wanted.near),
                far_set: self.sets.id_of(&wanted.far, &mut sets),
                far_count: count(&wanted.far),
                affinity_timeout: affinity.map_or(0, |affinity| affinity.timeout),
                ranges: self.ranges.id_of(&wanted.ranges, &mut ranges),
                affinity: affinity.map_or(0, |affinity| affinity.id),
                kind: wanted.kind,
                flags: wanted.flags,
                pad: [0; 6],
            };
            self.sets.using(value.near_set);
            self.sets.using(value.far_set);
            self.ranges.using(value.ranges);
            if wanted.flags & FRONTEND_MAGLEV != 0 {
                self.tables.using(value.near_set, &wanted.near);
                self.tables.using(value.far_set, &wanted.far);
            }
            let current = self.image.frontends.get(&key);
            if let Some(current) = current {
                self.release(current);
            }
            if current != Some(&value) {
                self.flips.push(Op::WriteFrontend { key, value });
            }
        }
    }

    fn release(&mut self, value: &FrontendValue) {
        self.sets.release(value.near_set);
        self.sets.release(value.far_set);
        self.tables.release(value.near_set);
        self.tables.release(value.far_set);
        self.ranges.release(value.ranges);
    }

    fn remove(&mut self, key: &FrontendKey) {
        if let Some(value) = self.image.frontends.get(key) {
            self.release(value);
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

    fn finish(mut self) -> EbpfPlan {
        self.owners.last = (self.sets.last, self.ranges.last);
        let mut gone: Vec<Op> = Vec::new();
        gone.extend(self.tables.gone().map(|set| Op::DeleteTable { set }));
        gone.extend(self.sets.gone().map(|(set, backends)| Op::DeleteSet {
            set,
            slots: count(backends),
        }));
        gone.extend(self.ranges.gone().map(|(ranges, list)| Op::DeleteRanges {
            ranges,
            list: list.clone(),
        }));
        let sets = self.sets.writes.into_iter();
        let mut ops: Vec<Op> = sets
            .map(|(set, backends)| Op::WriteSet { set, backends })
            .collect();
        ops.extend(self.tables.writes.into_values());
        let ranges = self.ranges.writes.into_iter();
        ops.extend(ranges.map(|(ranges, list)| Op::WriteRanges { ranges, list }));
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
mod against_oracle;
#[cfg(test)]
mod tests;
