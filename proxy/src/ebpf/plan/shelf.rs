//! Immutable lists in the maps, known by an id: what is in one never changes once a frontend points to it.

use std::collections::{BTreeMap, BTreeSet};

/// The lists of one kind while a plan is made.
pub(super) struct Shelf<'a, T> {
    /// In the kernel.
    there: &'a BTreeMap<u32, Vec<T>>,
    /// The last id given.
    pub(super) last: u32,
    /// New ones.
    pub(super) writes: Vec<(u32, Vec<T>)>,
    /// Of those in the kernel the ones that a frontend goes on pointing to.
    used: BTreeSet<u32>,
    /// Of those in the kernel the ones that a frontend pointed to.
    released: BTreeSet<u32>,
}

/// Lists of one Service by what is in them.
pub(super) type Known<T> = BTreeMap<Vec<T>, u32>;

impl<'a, T: Clone + Ord> Shelf<'a, T> {
    pub(super) fn new(there: &'a BTreeMap<u32, Vec<T>>, last: u32) -> Self {
        Self {
            there,
            last: there.keys().next_back().copied().unwrap_or(0).max(last),
            writes: Vec::new(),
            used: BTreeSet::new(),
            released: BTreeSet::new(),
        }
    }

    /// Offers a list to the frontends of the Service that has it, if it has as many items as the frontend believes.
    pub(super) fn offer(&self, id: u32, count: Option<u32>, known: &mut Known<T>) {
        if let Some(list) = self.there.get(&id)
            && count.is_none_or(|count| list.len() == count as usize)
            && !self.used.contains(&id)
        {
            known.entry(list.clone()).or_insert(id);
        }
    }

    /// The id of a list with these items: one that a frontend of the Service points to, or a new one. 0 is the empty
    /// list.
    pub(super) fn id_of(&mut self, items: &[T], known: &mut Known<T>) -> u32 {
        if items.is_empty() {
            return 0;
        }
        if let Some(id) = known.get(items) {
            return *id;
        }
        let id = self.free_id();
        known.insert(items.to_vec(), id);
        self.writes.push((id, items.to_vec()));
        id
    }

    fn free_id(&mut self) -> u32 {
        loop {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if !self.there.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    /// A frontend will point there.
    pub(super) fn using(&mut self, id: u32) {
        self.used.insert(id);
    }

    /// A frontend pointed there.
    pub(super) fn release(&mut self, id: u32) {
        self.released.insert(id);
    }

    /// Nothing that is there has an owner that is known.
    pub(super) fn release_all(&mut self) {
        self.released = self.there.keys().copied().collect();
    }

    /// The lists that nobody points to any more.
    pub(super) fn gone(&self) -> impl Iterator<Item = (u32, &'a Vec<T>)> {
        let ids = self.released.difference(&self.used);
        ids.filter_map(|id| Some((*id, self.there.get(id)?)))
    }
}
