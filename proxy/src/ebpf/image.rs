//! The Service tables of the kernel, in memory: what a plan starts from.

use std::collections::{BTreeMap, BTreeSet};

use seaway_ebpf_abi::maglev::MAGLEV_CHUNKS;
use seaway_ebpf_abi::{BackendKey, BackendValue, FrontendKey, FrontendValue, MaglevKey, RangeKey};
use seaway_model::{ObjectKey, pack};

use super::plan::Op;
use super::wanted::Range;

/// Frontends and backend sets as the maps hold them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) frontends: BTreeMap<FrontendKey, FrontendValue>,
    /// By id; the position in the vector is the slot.
    pub(super) sets: BTreeMap<u32, Vec<BackendValue>>,
    /// Backends in all of them.
    pub(super) slots: usize,
    /// Of the sets that have a Maglev table, what it is made of; 0 if it is not whole.
    pub(super) tables: BTreeMap<u32, u64>,
    /// Networks from which clients may come, by id, in order.
    pub(super) ranges: BTreeMap<u32, Vec<Range>>,
}

/// Which Service a frontend belongs to: known once a plan has been made, since maps hold no names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Owners {
    pub(super) of: BTreeMap<FrontendKey, ObjectKey>,
    /// The same the other way round.
    owned: BTreeSet<(ObjectKey, FrontendKey)>,
    /// Two Services want one frontend: then one leaving has to let the other in, and every plan is a full one.
    pub(super) contested: bool,
    /// The last ids given to sets and to ranges. Flows remember the id of their set, so that one that was given does not come
    /// again soon for another.
    pub(super) last: (u32, u32),
}

impl Image {
    /// From what was read of the maps. Slots of a set that are not `0..n` are kept as they come: nothing points to
    /// them, and the next full plan deletes them.
    pub(super) fn from_entries(
        frontends: Vec<(FrontendKey, FrontendValue)>,
        backends: Vec<(BackendKey, BackendValue)>,
        chunks: Vec<(MaglevKey, u64)>,
        networks: Vec<(RangeKey, u32)>,
    ) -> Self {
        let mut ranges: BTreeMap<u32, Vec<Range>> = BTreeMap::new();
        for (key, _) in networks {
            ranges.entry(key.ranges).or_default().push(Range::of(&key));
        }
        ranges.values_mut().for_each(|list| list.sort_unstable());
        let slots: BTreeMap<BackendKey, BackendValue> = backends.into_iter().collect();
        let mut sets: BTreeMap<u32, Vec<BackendValue>> = BTreeMap::new();
        for (key, value) in slots {
            let set = sets.entry(key.set).or_default();
            // A hole makes the set unequal to any that is wanted, so that it is written anew under another id.
            set.resize(key.slot as usize, BackendValue::default());
            set.push(value);
        }
        Self {
            slots: sets.values().map(Vec::len).sum(),
            tables: whole_tables(chunks),
            frontends: frontends.into_iter().collect(),
            sets,
            ranges,
        }
    }

    /// Lets go of room that many steps have left.
    pub(super) fn pack(&mut self) {
        pack(&mut self.frontends);
        pack(&mut self.sets);
    }

    /// What the maps hold after a step.
    pub(super) fn take_in(&mut self, op: &Op) {
        match op {
            Op::WriteSet { set, backends } => {
                self.slots += backends.len();
                let before = self.sets.insert(*set, backends.clone());
                self.slots -= before.map_or(0, |before| before.len());
            }
            Op::WriteTable { set, made_of, .. } => _ = self.tables.insert(*set, *made_of),
            Op::WriteRanges { ranges, list } => _ = self.ranges.insert(*ranges, list.clone()),
            Op::WriteFrontend { key, value } => _ = self.frontends.insert(*key, *value),
            Op::DeleteFrontend { key } => _ = self.frontends.remove(key),
            Op::DeleteSet { set, .. } => {
                let gone = self.sets.remove(set);
                self.slots -= gone.map_or(0, |gone| gone.len());
            }
            Op::DeleteTable { set } => _ = self.tables.remove(set),
            Op::DeleteRanges { ranges, .. } => _ = self.ranges.remove(ranges),
        }
    }
}

/// What each table is made of, if all of its chunks say the same.
fn whole_tables(chunks: Vec<(MaglevKey, u64)>) -> BTreeMap<u32, u64> {
    let mut tables: BTreeMap<u32, BTreeMap<u32, u64>> = BTreeMap::new();
    for (key, made_of) in chunks {
        tables
            .entry(key.set)
            .or_default()
            .insert(key.chunk, made_of);
    }
    let whole = |chunks: &BTreeMap<u32, u64>| {
        let distinct: BTreeSet<u64> = chunks.values().copied().collect();
        match distinct.first() {
            Some(made_of) if distinct.len() == 1 && chunks.keys().copied().eq(0..MAGLEV_CHUNKS) => {
                *made_of
            }
            _ => 0,
        }
    };
    let sets = tables.iter();
    sets.map(|(set, chunks)| (*set, whole(chunks))).collect()
}

impl Owners {
    /// Takes in what a plan decided. Returns the Services that have no frontend any more, unless all is known anew.
    pub(super) fn update(&mut self, changes: OwnerChanges) -> Vec<ObjectKey> {
        if changes.anew {
            *self = Self::anew(changes);
            return Vec::new();
        }
        let mut left = Vec::new();
        self.last = changes.last;
        self.contested |= changes.contested;
        for (frontend, owner) in changes.of {
            if let Some(before) = self.of.remove(&frontend) {
                let pair = (before, frontend);
                self.owned.remove(&pair);
                left.push(pair.0);
            }
            if let Some(owner) = owner {
                self.owned.insert((owner.clone(), frontend));
                self.of.insert(frontend, owner);
            }
        }
        left.retain(|service| !self.has(service));
        left
    }

    /// All at once, since maps that are made in one go are full and leave no holes.
    fn anew(changes: OwnerChanges) -> Self {
        let owners = changes.of.into_iter();
        let of: BTreeMap<FrontendKey, ObjectKey> = owners
            .filter_map(|(frontend, owner)| Some((frontend, owner?)))
            .collect();
        Self {
            owned: of
                .iter()
                .map(|(frontend, owner)| (owner.clone(), *frontend))
                .collect(),
            of,
            contested: changes.contested,
            last: changes.last,
        }
    }

    /// The frontends of a Service.
    pub(super) fn frontends(&self, service: &ObjectKey) -> impl Iterator<Item = &FrontendKey> {
        let first = (service.clone(), FrontendKey::default());
        let from_there = self.owned.range(first..);
        from_there
            .take_while(move |(owner, _)| owner == service)
            .map(|(_, frontend)| frontend)
    }

    /// Whether a Service has a frontend.
    pub(super) fn has(&self, service: &ObjectKey) -> bool {
        self.frontends(service).next().is_some()
    }
}

/// What a plan changes in [`Owners`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OwnerChanges {
    /// All that was known is void.
    pub(super) anew: bool,
    pub(super) of: BTreeMap<FrontendKey, Option<ObjectKey>>,
    pub(super) contested: bool,
    pub(super) last: (u32, u32),
}

impl OwnerChanges {
    /// The owner of a frontend as far as the plan has got.
    pub(super) fn owner<'a>(
        &'a self,
        known: &'a Owners,
        frontend: &FrontendKey,
    ) -> Option<&'a ObjectKey> {
        match self.of.get(frontend) {
            Some(changed) => changed.as_ref(),
            None if self.anew => None,
            None => known.of.get(frontend),
        }
    }
}
