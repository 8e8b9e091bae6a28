//! Desired against observed, held once.
//!
//! ```text
//!        desired                    observed
//!   ┌───────────────────┬──────────────────────────┐
//!   │ wanted            │ in sync      │ surplus   │
//!   │ (missing, or      │ (equal)      │ (unwanted,│
//!   │  other value)     │              │  or other │
//!   │                   │              │  value)   │
//!   └───────────────────┴──────────────────────────┘
//!     pending_updates = wanted
//!     pending_deletions = keys of surplus that are not wanted
//! ```
//!
//! A value that is as it should be is stored once. Finding what is pending costs what is pending, never the whole.

use std::collections::BTreeMap;
use std::mem;

#[cfg(test)]
mod tests;

/// What should be and what is, for one kind of object, with the difference at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta<K, V> {
    in_sync: BTreeMap<K, V>,
    wanted: BTreeMap<K, V>,
    surplus: BTreeMap<K, V>,
}

impl<K, V> Default for Delta<K, V> {
    fn default() -> Self {
        Self {
            in_sync: BTreeMap::new(),
            wanted: BTreeMap::new(),
            surplus: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone, V: PartialEq + Clone> Delta<K, V> {
    /// Nothing desired, nothing observed.
    pub fn new() -> Self {
        Self::default()
    }

    // === desired ===

    /// Wants `key` to have `value`.
    pub fn set_desired(&mut self, key: K, value: V) {
        if let Some(current) = self.in_sync.get(&key) {
            if *current == value {
                return;
            }
            if let Some(old) = self.in_sync.remove(&key) {
                self.surplus.insert(key.clone(), old);
            }
        } else if self.surplus.get(&key) == Some(&value) {
            self.surplus.remove(&key);
            self.wanted.remove(&key);
            self.in_sync.insert(key, value);
            return;
        }
        self.wanted.insert(key, value);
    }

    /// No longer wants `key`.
    pub fn remove_desired(&mut self, key: &K) {
        self.wanted.remove(key);
        if let Some((key, value)) = self.in_sync.remove_entry(key) {
            self.surplus.insert(key, value);
        }
    }

    /// Wants exactly these.
    pub fn replace_desired(&mut self, desired: impl IntoIterator<Item = (K, V)>) {
        self.wanted.clear();
        self.surplus.append(&mut self.in_sync);
        for (key, value) in desired {
            self.set_desired(key, value);
        }
    }

    /// What is desired for `key`.
    pub fn desired(&self, key: &K) -> Option<&V> {
        self.wanted.get(key).or_else(|| self.in_sync.get(key))
    }

    /// All that is desired, in no useful order.
    pub fn iter_desired(&self) -> impl Iterator<Item = (&K, &V)> {
        self.in_sync.iter().chain(&self.wanted)
    }

    // === observed ===

    /// `key` was seen to have `value`.
    pub fn observe(&mut self, key: K, value: V) {
        if let Some(desired) = self.in_sync.get(&key) {
            if *desired == value {
                return;
            }
            if let Some(desired) = self.in_sync.remove(&key) {
                self.wanted.insert(key.clone(), desired);
            }
        } else if self.wanted.get(&key) == Some(&value) {
            self.wanted.remove(&key);
            self.surplus.remove(&key);
            self.in_sync.insert(key, value);
            return;
        }
        self.surplus.insert(key, value);
    }

    /// `key` was seen to be absent.
    pub fn forget(&mut self, key: &K) {
        self.surplus.remove(key);
        if let Some((key, value)) = self.in_sync.remove_entry(key) {
            self.wanted.insert(key, value);
        }
    }

    /// Exactly these were seen.
    pub fn replace_observed(&mut self, observed: impl IntoIterator<Item = (K, V)>) {
        self.surplus.clear();
        self.wanted.append(&mut self.in_sync);
        for (key, value) in observed {
            self.observe(key, value);
        }
    }

    /// What is observed for `key`.
    pub fn observed(&self, key: &K) -> Option<&V> {
        self.surplus.get(key).or_else(|| self.in_sync.get(key))
    }

    /// All that is observed, in no useful order.
    pub fn iter_observed(&self) -> impl Iterator<Item = (&K, &V)> {
        self.in_sync.iter().chain(&self.surplus)
    }

    // === the difference ===

    /// To be created, or to be given this value.
    pub fn pending_updates(&self) -> impl Iterator<Item = (&K, &V)> {
        self.wanted.iter()
    }

    /// To be deleted, with the value that is there.
    pub fn pending_deletions(&self) -> impl Iterator<Item = (&K, &V)> {
        self.surplus
            .iter()
            .filter(|(key, _)| !self.wanted.contains_key(*key))
    }

    /// Whether nothing is pending.
    pub fn is_in_sync(&self) -> bool {
        self.wanted.is_empty() && self.surplus.is_empty()
    }

    /// `key` was brought to its desired state: updated, or deleted.
    pub fn mark_applied(&mut self, key: &K) {
        self.surplus.remove(key);
        if let Some((key, value)) = self.wanted.remove_entry(key) {
            self.in_sync.insert(key, value);
        }
    }

    /// Everything that was pending has been done.
    pub fn mark_all_applied(&mut self) {
        self.surplus.clear();
        self.in_sync.append(&mut mem::take(&mut self.wanted));
    }
}
