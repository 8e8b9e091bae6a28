//! All objects, indexed so that an event finds the Services it touches.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{EndpointSlice, InputEvent, Node, ObjectKey, Service};

/// All inputs, indexed so that one event finds the one Service it touches.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    pub services: BTreeMap<ObjectKey, Service>,
    /// Service key → slice name → slice.
    pub slices: BTreeMap<ObjectKey, BTreeMap<Arc<str>, EndpointSlice>>,
    pub nodes: BTreeMap<Arc<str>, Node>,
    pub synced: bool,
    /// Slice key → Service key, so that a deleted or relabelled slice finds its old Service.
    owner_of_slice: BTreeMap<ObjectKey, ObjectKey>,
}

impl Inputs {
    /// Takes one event in and returns the Services it touches (none for `Synced`).
    pub fn apply(&mut self, event: InputEvent) -> BTreeSet<ObjectKey> {
        match event {
            InputEvent::Service(key, service) => self.apply_service(key, service),
            InputEvent::Slice(key, slice) => self.apply_slice(key, slice),
            InputEvent::Node(name, node) => self.apply_node(name, node),
            InputEvent::Synced => {
                self.synced = true;
                BTreeSet::new()
            }
        }
    }

    fn apply_service(&mut self, key: ObjectKey, service: Option<Service>) -> BTreeSet<ObjectKey> {
        let changed = match service {
            Some(service) if self.services.get(&key) == Some(&service) => false,
            Some(service) => {
                self.services.insert(key.clone(), service);
                true
            }
            None => self.services.remove(&key).is_some(),
        };
        changed.then_some(key).into_iter().collect()
    }

    fn apply_slice(&mut self, key: ObjectKey, slice: Option<EndpointSlice>) -> BTreeSet<ObjectKey> {
        let mut touched = BTreeSet::new();
        let new_owner = slice.as_ref().map(|s| ObjectKey {
            namespace: key.namespace.clone(),
            name: s.service.clone(),
        });
        if let Some(old_owner) = self.owner_of_slice.remove(&key)
            && new_owner.as_ref() != Some(&old_owner)
        {
            if let Some(slices) = self.slices.get_mut(&old_owner) {
                slices.remove(&key.name);
                if slices.is_empty() {
                    self.slices.remove(&old_owner);
                }
            }
            touched.insert(old_owner);
        }
        if let (Some(slice), Some(owner)) = (slice, new_owner) {
            self.owner_of_slice.insert(key.clone(), owner.clone());
            let slices = self.slices.entry(owner.clone()).or_default();
            let known = slices.get(&key.name);
            if !known.is_some_and(|known| known.forwards_as(&slice)) {
                touched.insert(owner);
            }
            slices.insert(key.name, slice);
        }
        touched
    }

    /// Zone and addresses are what Services look at.
    fn apply_node(&mut self, name: Arc<str>, node: Option<Node>) -> BTreeSet<ObjectKey> {
        let mut touched = BTreeSet::new();
        let before = self.nodes.get(&name);
        let zones = [before, node.as_ref()].map(|n| n.and_then(|n| n.zone.clone()));
        if zones[0] != zones[1] {
            touched.extend(self.hinted_to(&zones));
        }
        if addresses(before) != addresses(node.as_ref()) {
            let guarded = self
                .services
                .iter()
                .filter(|(_, service)| !service.source_ranges.is_empty());
            touched.extend(guarded.map(|(key, _)| key.clone()));
        }
        match node {
            Some(node) => self.nodes.insert(name, node),
            None => self.nodes.remove(&name),
        };
        touched
    }

    /// Services with an endpoint that a hint gives to one of these zones.
    fn hinted_to(&self, zones: &[Option<Arc<str>>]) -> impl Iterator<Item = ObjectKey> {
        let hinted = |slice: &EndpointSlice| {
            let mut hints = slice.endpoints.iter().flat_map(|e| &e.zone_hints);
            hints.any(|hint| zones.iter().flatten().any(|zone| zone == hint))
        };
        self.slices
            .iter()
            .filter(move |(_, slices)| slices.values().any(hinted))
            .map(|(key, _)| key.clone())
    }
}

fn addresses(node: Option<&Node>) -> &[IpAddr] {
    node.map_or(&[], |node| &node.addresses)
}
