//! From the slices that are there to the slices that should be, with as few and as small writes as possible.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceSpec;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use serde_json::{Value, json};

use super::desired::{Set, is_headless, port_key};
use super::{HEADLESS, MANAGED_BY, MANAGER, SERVICE_NAME, TRIGGER_TIME, is_owned};
use crate::names;
use crate::object::{Key, Kind, ObjRef, Object};
use crate::owner;
use crate::plan::{Op, Plan};
use crate::selector;

/// Most endpoints in one slice (`--max-endpoints-per-slice`).
const MAX_ENDPOINTS: usize = 100;

/// Plans the writes for all sets of one Service.
pub(super) fn plan(
    service: &Object,
    spec: &ServiceSpec,
    sets: &[Set],
    existing: &[&Arc<EndpointSlice>],
    trigger: Option<Timestamp>,
    plan: &mut Plan,
) {
    let labels = labels(service, spec);
    let writer = Writer {
        service,
        labels: &labels,
        trigger,
    };
    let mut homeless: Vec<&Arc<EndpointSlice>> = existing.to_vec();
    for set in sets {
        let key = port_key(&set.ports);
        let same_set = |slice: &Arc<EndpointSlice>| {
            slice.address_type == set.address_type
                && port_key(slice.ports.as_deref().unwrap_or_default()) == key
        };
        let (own, rest): (Vec<_>, Vec<_>) = homeless.into_iter().partition(|slice| same_set(slice));
        homeless = rest;
        one_set(&writer, set, &own, plan);
    }
    // Last, so that no endpoint is away in between.
    for slice in homeless {
        plan.push(Op::delete(Kind::EndpointSlice, &slice.metadata));
    }
}

/// An existing slice with the endpoints that it should hold.
struct Draft<'a> {
    slice: &'a EndpointSlice,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

fn one_set(writer: &Writer<'_>, set: &Set, existing: &[&Arc<EndpointSlice>], plan: &mut Plan) {
    // By address: an endpoint that is there already stays in its slice and place.
    let mut missing: BTreeMap<&str, &Endpoint> = BTreeMap::new();
    for endpoint in &set.endpoints {
        // Two Pods share an address on the host's network, or when one that ends has already been succeeded.
        let place = missing.entry(address(endpoint)).or_insert(endpoint);
        if !is_ready(place) {
            *place = endpoint;
        }
    }
    let mut drafts: Vec<Draft<'_>> = existing
        .iter()
        .map(|slice| {
            let mut changed = !writer.is_current(slice);
            let kept = slice
                .endpoints
                .iter()
                .filter_map(|old| missing.remove(address(old)));
            let endpoints: Vec<Endpoint> = kept.cloned().collect();
            changed |= endpoints != slice.endpoints;
            Draft {
                slice,
                endpoints,
                changed,
            }
        })
        .collect();
    let mut rest: Vec<Endpoint> = in_order(set, &missing);
    // Slices that are written anyway take what they can, fullest first; then one that can take all the rest.
    drafts.sort_by_key(|draft| std::cmp::Reverse(draft.endpoints.len()));
    for draft in drafts
        .iter_mut()
        .filter(|draft| draft.changed && !draft.endpoints.is_empty())
    {
        let room = MAX_ENDPOINTS
            .saturating_sub(draft.endpoints.len())
            .min(rest.len());
        draft.endpoints.extend(rest.drain(..room));
    }
    let fits = |draft: &&mut Draft<'_>| draft.endpoints.len() + rest.len() <= MAX_ENDPOINTS;
    if !rest.is_empty()
        && let Some(draft) = drafts.iter_mut().find(fits)
    {
        draft.endpoints.append(&mut rest);
        draft.changed = true;
    }
    while rest.len() > MAX_ENDPOINTS {
        let chunk: Vec<Endpoint> = rest.drain(..MAX_ENDPOINTS).collect();
        writer.create(set, &chunk, plan);
    }
    // A Service without endpoints keeps one empty slice: readers tell "none" from "not yet".
    let survivors = drafts
        .iter()
        .filter(|draft| !draft.endpoints.is_empty())
        .count();
    if !rest.is_empty() || (survivors == 0 && set.endpoints.is_empty() && drafts.is_empty()) {
        writer.create(set, &rest, plan);
    }
    let mut placeholder = survivors == 0 && set.endpoints.is_empty();
    for draft in drafts {
        if draft.endpoints.is_empty() && !std::mem::take(&mut placeholder) {
            plan.push(Op::delete(Kind::EndpointSlice, &draft.slice.metadata));
        } else if draft.changed {
            writer.update(set, &draft, plan);
        }
    }
}

/// The endpoints still without a slice, in the order of the set.
fn in_order(set: &Set, missing: &BTreeMap<&str, &Endpoint>) -> Vec<Endpoint> {
    let mut seen: HashSet<&str> = HashSet::new();
    let endpoints = set.endpoints.iter();
    endpoints
        .filter(|e| missing.contains_key(address(e)) && seen.insert(address(e)))
        .filter_map(|e| missing.get(address(e)))
        .map(|e| (*e).clone())
        .collect()
}

fn is_ready(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.and_then(|c| c.ready) == Some(true)
}

fn address(endpoint: &Endpoint) -> &str {
    endpoint
        .addresses
        .first()
        .map(String::as_str)
        .unwrap_or_default()
}

/// The labels of a Service's slices: its own, and ours.
fn labels(service: &Object, spec: &ServiceSpec) -> BTreeMap<String, String> {
    let mut labels = selector::labels(service.meta()).clone();
    labels.remove(HEADLESS);
    let name = service.meta().name.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name);
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if is_headless(spec) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

struct Writer<'a> {
    service: &'a Object,
    labels: &'a BTreeMap<String, String>,
    trigger: Option<Timestamp>,
}

impl Writer<'_> {
    fn is_current(&self, slice: &EndpointSlice) -> bool {
        selector::labels(&slice.metadata) == self.labels && is_owned(slice, self.service)
    }

    fn trigger(&self) -> Value {
        // As Go's RFC3339Nano; null takes an old time away.
        json!(self.trigger.map(|time| time.to_string()))
    }

    fn create(&self, set: &Set, endpoints: &[Endpoint], plan: &mut Plan) {
        let meta = self.service.meta();
        let base = format!("{}-", meta.name.as_deref().unwrap_or_default());
        let name = names::generate(&base, &mut rand::rng());
        let mut body = json!({
            "metadata": {
                "generateName": base,
                "labels": self.labels,
                "ownerReferences": [owner::controlled_by(self.service)],
            },
            "addressType": set.address_type,
            "endpoints": endpoints,
            "ports": set.ports,
        });
        if self.trigger.is_some() {
            body["metadata"]["annotations"] = json!({TRIGGER_TIME: self.trigger()});
        }
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let at = ObjRef::new(Kind::EndpointSlice, namespace, &name);
        plan.push(Op::Create { at, body });
    }

    fn update(&self, set: &Set, draft: &Draft<'_>, plan: &mut Plan) {
        let slice = draft.slice;
        let mut labels = json!(self.labels);
        for gone in selector::labels(&slice.metadata).keys() {
            if !self.labels.contains_key(gone) {
                labels[gone] = Value::Null;
            }
        }
        let mut body = json!({
            "metadata": {
                "uid": slice.metadata.uid,
                "annotations": {TRIGGER_TIME: self.trigger()},
                "labels": labels,
            },
            "endpoints": draft.endpoints,
            "ports": set.ports,
        });
        if !is_owned(slice, self.service) {
            body["metadata"]["ownerReferences"] = json!([owner::controlled_by(self.service)]);
        }
        let at = ObjRef {
            kind: Kind::EndpointSlice,
            key: Key::of(&slice.metadata),
        };
        plan.patch(at, "", body);
    }
}
