//! The controllers' image of the cluster: what the watches say, corrected by our own writes.
//!
//! A watch runs behind. A controller that plans from it right after a write would not see that write, and would,
//! for example, create a Pod twice. So the answer to each write enters the image at once ([`State::wrote`],
//! [`State::deleted`]) and older news from the watch is ignored: every plan reads its own writes. That replaces
//! the "expectations" that Kubernetes' controllers keep one by one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::object::{Cached, Key, Kind, ObjRef, Object};

/// How long an own write may go without the watch telling of it.
const UNCONFIRMED_FOR: Duration = Duration::from_secs(60);

/// One thing that became different. Neither side set never happens.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub old: Option<Object>,
    pub new: Option<Object>,
}

impl Change {
    /// The object after the change, or the last state of one that is gone.
    pub(crate) fn object(&self) -> Option<&Object> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

struct Entry {
    object: Object,
    /// Set for an own write that no watch event has confirmed; the time since start at which it was made.
    unconfirmed: Option<Duration>,
}

/// All objects of the watched kinds, with the indexes that plans need.
#[derive(Default)]
pub(crate) struct State {
    objects: BTreeMap<ObjRef, Entry>,
    /// Owner uid -> objects that name it in `ownerReferences`.
    dependents: HashMap<String, BTreeSet<ObjRef>>,
    /// Node name -> Pods bound to it.
    pods_on: HashMap<String, BTreeSet<Key>>,
    /// Uids of objects that are gone, with the time we learned of it: neither a late watch event nor the late answer
    /// to an own write may bring them back.
    tombstones: HashMap<String, Duration>,
}

impl State {
    /// One object by its key.
    pub(crate) fn get<K: Cached>(&self, key: &Key) -> Option<&Arc<K>> {
        let at = ObjRef {
            kind: K::KIND,
            key: key.clone(),
        };
        K::from_object(&self.objects.get(&at)?.object)
    }

    /// All objects of a kind, by namespace and name.
    pub(crate) fn all<K: Cached>(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects
            .range(ObjRef::new(K::KIND, "", "")..)
            .take_while(|(at, _)| at.kind == K::KIND)
            .filter_map(|(_, entry)| K::from_object(&entry.object))
    }

    /// All objects of a kind in one namespace, by name.
    pub(crate) fn within<K: Cached>(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        self.objects
            .range(ObjRef::new(K::KIND, namespace, "")..)
            .take_while(move |(at, _)| at.kind == K::KIND && *at.key.namespace == *namespace)
            .filter_map(|(_, entry)| K::from_object(&entry.object))
    }

    /// Any object by its reference.
    pub(crate) fn object(&self, at: &ObjRef) -> Option<&Object> {
        self.objects.get(at).map(|entry| &entry.object)
    }

    /// Every object, in order of kind, namespace, name.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values().map(|entry| &entry.object)
    }

    /// Objects that name this uid among their owners.
    pub(crate) fn dependents(&self, uid: &str) -> impl Iterator<Item = &Object> {
        let found = self.dependents.get(uid).into_iter().flatten();
        found.filter_map(|at| self.object(at))
    }

    /// Objects of one kind that name this uid among their owners.
    pub(crate) fn owned<K: Cached>(&self, uid: &str) -> impl Iterator<Item = &Arc<K>> {
        self.dependents(uid).filter_map(K::from_object)
    }

    /// Pods bound to a node.
    pub(crate) fn pods_on(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        let found = self.pods_on.get(node).into_iter().flatten();
        found.filter_map(|key| self.get::<Pod>(key))
    }

    /// Takes in what a watch reports. `None` when it is old news.
    pub(crate) fn observed(&mut self, object: Object) -> Option<Change> {
        if self.tombstones.contains_key(object.uid()) {
            return None;
        }
        let at = object.reference();
        if let Some(entry) = self.objects.get_mut(&at) {
            let same_object = entry.object.uid() == object.uid();
            if same_object && object.revision() == entry.object.revision() {
                entry.unconfirmed = None;
                return None;
            }
            if object.revision() < entry.object.revision() {
                return None;
            }
        }
        Some(self.put(at, object, None))
    }

    /// Takes in that a watch reports an object gone. It may tell so before the answer to our write of the last
    /// finalizer is here.
    pub(crate) fn vanished(&mut self, object: &Object, now: Duration) -> Option<Change> {
        self.tombstones.insert(object.uid().to_owned(), now);
        let at = object.reference();
        // A successor of the same name, written by us, may be here already.
        if self.objects.get(&at)?.object.uid() != object.uid() {
            return None;
        }
        self.take(&at)
    }

    /// Takes in the answer to an own write.
    pub(crate) fn wrote(&mut self, object: Object, now: Duration) -> Option<Change> {
        let at = object.reference();
        let known = self.objects.get(&at).map(|entry| &entry.object);
        if known.is_some_and(|known| known.revision() >= object.revision())
            || self.tombstones.contains_key(object.uid())
        {
            return None;
        }
        Some(self.put(at, object, Some(now)))
    }

    /// Takes in that an own delete removed the object at once.
    pub(crate) fn deleted(&mut self, at: &ObjRef, uid: &str, now: Duration) -> Option<Change> {
        if self.objects.get(at)?.object.uid() != uid {
            return None;
        }
        self.tombstones.insert(uid.to_owned(), now);
        self.take(at)
    }

    /// Takes in a complete list of one kind: applies it and drops what it does not name.
    pub(crate) fn relisted(&mut self, kind: Kind, listed: Vec<Object>) -> Vec<Change> {
        let newest = listed.iter().map(Object::revision).max().unwrap_or(0);
        let named: BTreeSet<ObjRef> = listed.iter().map(Object::reference).collect();
        let mut changes: Vec<Change> = listed
            .into_iter()
            .filter_map(|object| self.observed(object))
            .collect();
        let gone: Vec<ObjRef> = self
            .objects
            .range(ObjRef::new(kind, "", "")..)
            .take_while(|(at, _)| at.kind == kind)
            .filter(|(at, entry)| {
                // An own write newer than the list is told of by the watch that follows it.
                let newer = entry.unconfirmed.is_some() && entry.object.revision() > newest;
                !newer && !named.contains(at)
            })
            .map(|(at, _)| at.clone())
            .collect();
        changes.extend(gone.iter().filter_map(|at| self.take(at)));
        changes
    }

    /// Forgets own writes that no watch ever confirmed, and tombstones that have done their work.
    pub(crate) fn sweep(&mut self, now: Duration) -> Vec<Change> {
        let stale = |since: Duration| now.saturating_sub(since) > UNCONFIRMED_FOR;
        self.tombstones.retain(|_, since| !stale(*since));
        let gone: Vec<ObjRef> = self
            .objects
            .iter()
            .filter(|(_, entry)| entry.unconfirmed.is_some_and(stale))
            .map(|(at, _)| at.clone())
            .collect();
        gone.iter().filter_map(|at| self.take(at)).collect()
    }

    fn put(&mut self, at: ObjRef, object: Object, unconfirmed: Option<Duration>) -> Change {
        let old = self.take(&at).and_then(|change| change.old);
        for owner in object.meta().owner_references.iter().flatten() {
            let dependents = self.dependents.entry(owner.uid.clone()).or_default();
            dependents.insert(at.clone());
        }
        if let Some(node) = bound_to(&object) {
            let pods = self.pods_on.entry(node.to_owned()).or_default();
            pods.insert(at.key.clone());
        }
        let new = Some(object.clone());
        let entry = Entry {
            object,
            unconfirmed,
        };
        self.objects.insert(at, entry);
        Change { old, new }
    }

    fn take(&mut self, at: &ObjRef) -> Option<Change> {
        let object = self.objects.remove(at)?.object;
        for owner in object.meta().owner_references.iter().flatten() {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(at);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        if let Some(node) = bound_to(&object)
            && let Some(pods) = self.pods_on.get_mut(node)
        {
            pods.remove(&at.key);
            if pods.is_empty() {
                self.pods_on.remove(node);
            }
        }
        Some(Change {
            old: Some(object),
            new: None,
        })
    }
}

fn bound_to(object: &Object) -> Option<&str> {
    let pod = Pod::from_object(object)?;
    pod.spec.as_ref()?.node_name.as_deref()
}

#[cfg(test)]
mod tests;
