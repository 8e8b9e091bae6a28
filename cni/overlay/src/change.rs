//! What changed Nodes ask for, in proportion to what changed: their own routes, neighbours and addresses before and after,
//! and nothing of the others. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use seaway_model::Node;

use crate::mesh::{Roster, Verdict};
use crate::plan::{Desired, Manner};

#[cfg(test)]
mod tests;

/// The part of the wanted state that is touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Of whom: those that changed, and those that quarrel with them.
    pub names: BTreeSet<Arc<str>>,
    pub before: Desired,
    pub after: Desired,
}

/// Takes changed Nodes into the roster, and what they had out of the wanted state, into which the answer's `after` belongs once it
/// is there. `None` if it is not a matter of some peers: the device has to be another.
pub fn change(
    roster: &mut Roster,
    desired: &mut Desired,
    nodes: &BTreeMap<Arc<str>, Node>,
    changed: &BTreeSet<Arc<str>>,
    manner: Manner<'_>,
) -> Option<Part> {
    let mut touched: BTreeMap<Arc<str>, Option<Verdict>> = BTreeMap::new();
    for name in changed {
        for (name, before) in roster.change(name, nodes.get(name)) {
            // What was first is what is in the kernel.
            touched.entry(name).or_insert(before);
        }
        // Probing may have found something new of a Node that is as it was.
        if !touched.contains_key(name) {
            touched.insert(name.clone(), roster.verdict(name).cloned());
        }
    }
    if manner.device(roster) != desired.device {
        return None;
    }
    let mut before = desired.without_peers();
    let mut after = before.clone();
    for member in touched.values().flatten().flatten() {
        desired.give(member, &mut before);
    }
    for name in touched.keys() {
        if let Some(Ok(peer)) = roster.verdict(name) {
            manner.add(roster.own(), peer, &mut after);
        }
    }
    Some(Part {
        names: touched.into_keys().collect(),
        before,
        after,
    })
}
