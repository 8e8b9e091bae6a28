//! Desired state and change → what the chains should hold → the transaction that gets there.
//!
//! Pure, one family at a time. The cost is that of the Services in the change; [`Change::Full`] builds everything
//! anew and compares.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use seaway_model::{Change, Delta, Desired, Family, ObjectKey};

use super::dispatch::{self, Tree, TreeEdit};
use super::fixed;
use super::rule::{AddrMask, ChainId, ChainName, Rules};
use super::service::{self, Entry};
use super::transaction::Transaction;

#[cfg(test)]
mod tests;

/// What shapes the rules of a family besides the Services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub family: Family,
    /// Sources in here are pods (`--cluster-cidr`), of this family only.
    pub pod_ranges: Vec<AddrMask>,
    /// Masquerade all cluster IP traffic.
    pub masquerade_all: bool,
    /// The kernel and the tool know `--random-fully`.
    pub random_fully: bool,
    /// Drop forwarded packets that connection tracking calls invalid.
    pub drop_invalid: bool,
}

impl Settings {
    /// The ranges of `family` among `cluster_cidrs`, and the defaults for the rest.
    pub fn new(family: Family, cluster_cidrs: &[IpNetwork]) -> Self {
        Self {
            family,
            pod_ranges: cluster_cidrs
                .iter()
                .filter(|cidr| Family::of(cidr.ip()) == family)
                .map(|cidr| AddrMask::from(*cidr))
                .collect(),
            masquerade_all: false,
            random_fully: true,
            drop_invalid: true,
        }
    }
}

/// All chains of ours with their content, and our jumps in the built-in ones.
pub type Chains = BTreeMap<ChainId, Rules>;

/// What the kernel holds of ours in one family, as far as we know, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    pub chains: Chains,
    layout: Layout,
}

/// Who has put what where. Empty until the first full plan was applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Layout {
    services: BTreeMap<ObjectKey, Footprint>,
    tree: Tree,
}

/// What a Service has in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Footprint {
    chains: Vec<ChainName>,
    entries: Vec<Entry>,
}

/// What is to be done in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyPlan {
    pub family: Family,
    /// What the kernel is told.
    pub transaction: Transaction,
    /// What the image learns once the kernel has taken it.
    learn: Lesson,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Lesson {
    full: bool,
    services: BTreeMap<ObjectKey, Option<Footprint>>,
    tree: Tree,
    chains: BTreeMap<ChainId, Option<Rules>>,
}

impl Image {
    /// The image of a kernel that was read, before anything is known of who wanted it.
    pub fn observed(chains: Chains) -> Self {
        Self {
            chains,
            layout: Layout::default(),
        }
    }

    /// The transaction that brings the kernel from here to `desired`, for what `change` touches. Without an earlier
    /// full plan every change is taken as full.
    pub fn plan(&self, desired: &Desired, change: &Change, settings: &Settings) -> FamilyPlan {
        match change {
            Change::Services(keys) if !self.layout.tree.is_empty() => {
                let edit = Edit::of(&self.layout, desired, keys, settings);
                self.compare(edit, settings, false)
            }
            _ => {
                let nothing = Layout::default();
                let mut edit = Edit::of(&nothing, desired, &desired.keys(), settings);
                for (id, rules) in fixed::chains(settings) {
                    edit.chains.insert(id, Some(rules));
                }
                // Somebody's own chain that jumps to one of ours is let be; only cleanup has to break it.
                let known = |id: &&ChainId| id.name.is_ours() || fixed::is_built_in(id);
                for id in self.chains.keys().filter(known) {
                    edit.chains.entry(id.clone()).or_insert(None);
                }
                self.compare(edit, settings, true)
            }
        }
    }

    /// Takes a plan as done.
    pub fn learn(&mut self, plan: FamilyPlan) {
        let Lesson {
            full,
            services,
            tree,
            chains,
        } = plan.learn;
        if full {
            self.layout = Layout::default();
        }
        for (key, footprint) in services {
            match footprint {
                Some(footprint) => self.layout.services.insert(key, footprint),
                None => self.layout.services.remove(&key),
            };
        }
        for (name, slots) in tree {
            if slots.is_empty() && !dispatch::is_root(&name) {
                self.layout.tree.remove(&name);
            } else {
                self.layout.tree.insert(name, slots);
            }
        }
        for (id, rules) in chains {
            match rules {
                Some(rules) => self.chains.insert(id, rules),
                None => self.chains.remove(&id),
            };
        }
    }

    /// Drops from an edit what the kernel already has.
    fn compare(&self, edit: Edit, settings: &Settings, full: bool) -> FamilyPlan {
        let mut delta: Delta<ChainId, Rules> = Delta::new();
        for (id, wanted) in edit.chains {
            if let Some(rules) = self.chains.get(&id) {
                delta.observe(id.clone(), rules.clone());
            }
            if let Some(rules) = wanted {
                delta.set_desired(id, rules);
            }
        }
        let chains = delta
            .pending_updates()
            .map(|(id, rules)| (id.clone(), Some(rules.clone())))
            .chain(delta.pending_deletions().map(|(id, _)| (id.clone(), None)))
            .collect();
        FamilyPlan {
            family: settings.family,
            transaction: Transaction::new(settings.family, &delta),
            learn: Lesson {
                full,
                services: edit.services,
                tree: edit.tree,
                chains,
            },
        }
    }
}

/// New content for some chains; `None`: not wanted.
struct Edit {
    services: BTreeMap<ObjectKey, Option<Footprint>>,
    tree: Tree,
    chains: BTreeMap<ChainId, Option<Rules>>,
}

impl Edit {
    /// What changes when these Services become what they are in `desired`.
    fn of(
        layout: &Layout,
        desired: &Desired,
        keys: &BTreeSet<ObjectKey>,
        settings: &Settings,
    ) -> Self {
        let mut tree = TreeEdit::new(&layout.tree, settings.family);
        let mut chains = BTreeMap::new();
        let mut services = BTreeMap::new();
        for key in keys {
            let before = layout.services.get(key);
            if let Some(before) = before {
                let gone = before.chains.iter().map(|name| (ChainId::nat(name), None));
                chains.extend(gone);
            }
            let after = desired
                .services
                .get(key)
                .map(|service| service::chains(key, service, settings));
            let entries_before = before.map_or(&[][..], |b| &b.entries);
            let entries_after = after.as_ref().map_or(&[][..], |a| &a.entries);
            if entries_before != entries_after {
                tree.remove(key, entries_before);
                tree.insert(key, entries_after);
            }
            let footprint = after.map(|after| Footprint {
                entries: after.entries,
                chains: after
                    .chains
                    .into_iter()
                    .map(|(name, rules)| {
                        chains.insert(ChainId::nat(&name), Some(rules));
                        name
                    })
                    .collect(),
            });
            services.insert(key.clone(), footprint);
        }
        let tree = tree.finish();
        for (name, slots) in &tree {
            let rules = (!slots.is_empty() || dispatch::is_root(name))
                .then(|| slots.values().cloned().collect());
            chains.insert(ChainId::nat(name), rules);
        }
        Self {
            services,
            tree,
            chains,
        }
    }
}
