//! Maps that take no more room than they need.

use std::collections::BTreeMap;

/// Builds a map anew, with full nodes. One that was filled in the order of its keys, as a list of objects comes, has
/// nodes that are little more than half full. Costs a walk over all of it: for after a list, not for a change.
pub fn pack<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    *map = std::mem::take(map).into_iter().collect();
}
