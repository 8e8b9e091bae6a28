//! All objects, indexed so that an event finds the Services it touches.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{EndpointSlice, InputEvent, Kind, Node, ObjectKey, Service};
use crate::derive::Diagnostic;
use crate::pack;

/// All inputs, indexed so that one event finds the one Service it touches.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    pub services: BTreeMap<ObjectKey, Service>,
    /// Service key → its slices, sorted by name. Nearly always one: a map of its own for it would be 1.7 kB.
    pub slices: BTreeMap<ObjectKey, Vec<EndpointSlice>>,
    pub nodes: BTreeMap<Arc<str>, Node>,
    pub synced: bool,
    /// Slice key → its Service, so that a deleted or relabelled slice finds its old one.
    owner_of_slice: BTreeMap<ObjectKey, ObjectKey>,
    /// What the source could not read, only of objects of which there is something to say.
    findings: BTreeMap<Kind, BTreeMap<ObjectKey, Vec<Diagnostic>>>,
}

impl Inputs {
    /// Lets go of room that a list has left in the maps, and of second copies of the names of Services: slices come with
    /// their own.
    pub fn pack(&mut self) {
        pack(&mut self.services);
        let services = &self.services;
        let shared = |key: ObjectKey| match services.get_key_value(&key) {
            Some((known, _)) => known.clone(),
            None => key,
        };
        let slices = std::mem::take(&mut self.slices).into_iter();
        self.slices = slices
            .map(|(owner, mut slices)| {
                let owner = shared(owner);
                slices
                    .iter_mut()
                    .for_each(|slice| slice.service = owner.clone());
                (owner, slices)
            })
            .collect();
        let owners = std::mem::take(&mut self.owner_of_slice).into_iter();
        self.owner_of_slice = owners.map(|(key, owner)| (key, shared(owner))).collect();
    }

    /// Takes one event in and returns the Services it touches (none for `Synced`).
    pub fn apply(&mut self, event: InputEvent) -> BTreeSet<ObjectKey> {
        match event {
            InputEvent::Service(key, service) => self.apply_service(key, service),
            InputEvent::Slice(key, slice) => self.apply_slice(&key, slice),
            InputEvent::Node(name, node) => self.apply_node(name, node),
            InputEvent::Findings(kind, key, found) => self.apply_findings(kind, key, found),
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

    fn apply_slice(
        &mut self,
        key: &ObjectKey,
        slice: Option<EndpointSlice>,
    ) -> BTreeSet<ObjectKey> {
        let mut touched = BTreeSet::new();
        let new_owner = slice.as_ref().map(|slice| slice.service.clone());
        let old_owner = self.owner_of_slice.remove(key);
        if old_owner != new_owner && self.found(Kind::Slice, key).next().is_some() {
            // Its findings counted for itself before, or will now.
            touched.insert(key.clone());
        }
        if let Some(old_owner) = old_owner
            && new_owner.as_ref() != Some(&old_owner)
        {
            if let Some(slices) = self.slices.get_mut(&old_owner) {
                slices.retain(|slice| slice.key != *key);
                if slices.is_empty() {
                    self.slices.remove(&old_owner);
                }
            }
            touched.insert(old_owner);
        }
        if let (Some(slice), Some(owner)) = (slice, new_owner) {
            self.owner_of_slice.insert(key.clone(), owner.clone());
            let slices = self.slices.entry(owner.clone()).or_default();
            match slices.binary_search_by(|known| known.key.cmp(key)) {
                Ok(found) => {
                    if !slices[found].forwards_as(&slice) {
                        touched.insert(owner);
                    }
                    slices[found] = slice;
                }
                Err(place) => {
                    slices.reserve_exact(1);
                    slices.insert(place, slice);
                    touched.insert(owner);
                }
            }
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

    /// Findings about a slice count for its Service; about one that nobody owns, and about a node, for its own name.
    fn apply_findings(
        &mut self,
        kind: Kind,
        key: ObjectKey,
        found: Vec<Diagnostic>,
    ) -> BTreeSet<ObjectKey> {
        let owner = match kind {
            Kind::Service | Kind::Node => None,
            Kind::Slice => self.owner_of_slice.get(&key),
        };
        let owner = owner.unwrap_or(&key).clone();
        let of_kind = self.findings.entry(kind).or_default();
        let changed = of_kind.get(&key).is_some_and(|known| *known != found)
            || (!found.is_empty() && !of_kind.contains_key(&key));
        if found.is_empty() {
            of_kind.remove(&key);
        } else {
            of_kind.insert(key, found);
        }
        changed.then_some(owner).into_iter().collect()
    }

    /// What the source has found that counts for the Service or node of this name, whether it is there or not.
    pub(crate) fn findings<'a>(
        &'a self,
        key: &'a ObjectKey,
    ) -> impl Iterator<Item = &'a Diagnostic> {
        let slices = self.slices.get(key).into_iter().flatten();
        let unowned = Some(key).filter(|key| !self.owner_of_slice.contains_key(key));
        let of_slices = slices
            .map(|slice| &slice.key)
            .chain(unowned)
            .flat_map(|slice| self.found(Kind::Slice, slice));
        let of_object = [Kind::Service, Kind::Node].into_iter();
        of_object
            .flat_map(|kind| self.found(kind, key))
            .chain(of_slices)
    }

    fn found<'a>(&'a self, kind: Kind, key: &'a ObjectKey) -> impl Iterator<Item = &'a Diagnostic> {
        let of_kind = self.findings.get(&kind);
        let of_object = of_kind.and_then(|of_kind| of_kind.get(key));
        of_object.into_iter().flatten()
    }

    /// Services with an endpoint that a hint gives to one of these zones.
    fn hinted_to(&self, zones: &[Option<Arc<str>>]) -> impl Iterator<Item = ObjectKey> {
        let hinted = |slice: &EndpointSlice| {
            let mut hints = slice.endpoints.iter().flat_map(|e| &e.zone_hints);
            hints.any(|hint| zones.iter().flatten().any(|zone| zone == hint))
        };
        self.slices
            .iter()
            .filter(move |(_, slices)| slices.iter().any(hinted))
            .map(|(key, _)| key.clone())
    }
}

fn addresses(node: Option<&Node>) -> &[IpAddr] {
    node.map_or(&[], |node| &node.addresses)
}
