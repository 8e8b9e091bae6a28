//! Which backend sets have a Maglev table.

use std::collections::{BTreeMap, BTreeSet};

use seaway_ebpf_abi::BackendValue;

use super::Op;
use crate::ebpf::maglev;

/// The tables while a plan is made, by their sets.
pub(super) struct Tables<'a> {
    /// In the kernel, and what they are made of.
    there: &'a BTreeMap<u32, u64>,
    seed: u32,
    /// New ones, and those that are made of something else now.
    pub(super) writes: BTreeMap<u32, Op>,
    used: BTreeSet<u32>,
    /// Sets that a frontend pointed to.
    released: BTreeSet<u32>,
}

impl<'a> Tables<'a> {
    pub(super) fn new(there: &'a BTreeMap<u32, u64>, seed: u32) -> Self {
        Self {
            there,
            seed,
            writes: BTreeMap::new(),
            used: BTreeSet::new(),
            released: BTreeSet::new(),
        }
    }

    /// A frontend that goes by hash will point to that set. With a single backend there is nothing to choose.
    pub(super) fn using(&mut self, set: u32, backends: &[BackendValue]) {
        if backends.len() < 2 || !self.used.insert(set) {
            return;
        }
        let made_of = maglev::made_of(backends, self.seed);
        if self.there.get(&set) != Some(&made_of) {
            let write = Op::WriteTable {
                set,
                made_of,
                seed: self.seed,
                backends: backends.to_vec(),
            };
            self.writes.insert(set, write);
        }
    }

    /// A frontend pointed to that set.
    pub(super) fn release(&mut self, set: u32) {
        if self.there.contains_key(&set) {
            self.released.insert(set);
        }
    }

    /// Nothing that is there has an owner that is known.
    pub(super) fn release_all(&mut self) {
        self.released = self.there.keys().copied().collect();
    }

    /// The sets whose table nobody asks any more.
    pub(super) fn gone(&self) -> impl Iterator<Item = u32> {
        self.released.difference(&self.used).copied()
    }
}
