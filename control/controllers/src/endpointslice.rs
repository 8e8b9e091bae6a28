//! EndpointSlices: which Pods stand behind a Service (KEP-752).

mod desired;
mod reconcile;
mod trigger;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::namespace;
use crate::object::{Key, Kind, ObjRef, Object};
use crate::owner;
use crate::plan::{Clock, Controller, Op, Plan};
use crate::pods;
use crate::selector;
use crate::state::{Change, State};

/// Label that ties a slice to its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label that says who writes a slice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Label on the slices of headless Services, which proxies need not read.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Annotation with the time of the change that caused the last write, from which proxies measure their delay.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Label of a Node with its zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// The EndpointSlice controller.
#[derive(Default)]
pub(crate) struct EndpointSlices {
    triggers: HashMap<ObjRef, trigger::Triggers>,
}

impl Controller for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpointslice-controller"
    }

    fn touched(&self, change: &Change, state: &State) -> Vec<ObjRef> {
        match change.object() {
            Some(service @ Object::Service(_)) => vec![service.reference()],
            Some(Object::Pod(_)) => services_of_pod(change, state),
            Some(Object::EndpointSlice(slice)) => service_of(slice).into_iter().collect(),
            Some(Object::Node(node)) if zone_changed(change) => {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                let labels = state.pods_on(name).flat_map(|pod| services(pod, state));
                labels.collect()
            }
            _ => Vec::new(),
        }
    }

    fn plan(&mut self, key: &ObjRef, state: &State, _clock: Clock) -> Plan {
        let mut plan = Plan::default();
        let existing: Vec<&Arc<EndpointSlice>> = state
            .within::<EndpointSlice>(&key.key.namespace)
            .filter(|slice| service_of(slice).as_ref() == Some(key))
            .collect();
        let service = state.get::<Service>(&key.key);
        let Some((service, object)) = service.zip(state.object(key)) else {
            self.triggers.remove(key);
            for slice in existing {
                plan.push(Op::delete(Kind::EndpointSlice, &slice.metadata));
            }
            return plan;
        };
        let Some(spec) = service.spec.as_ref().filter(|spec| is_managed(spec)) else {
            return plan;
        };
        if service.metadata.deletion_timestamp.is_some()
            || namespace::is_terminating(state, &key.key.namespace)
        {
            return plan;
        }
        let selector = spec.selector.clone().unwrap_or_default();
        let pods: Vec<&Arc<Pod>> = state
            .within::<Pod>(&key.key.namespace)
            .filter(|pod| selector::equals(&selector, selector::labels(&pod.metadata)))
            .filter(|pod| desired::belongs(pod))
            .collect();
        let triggers = self.triggers.entry(key.clone()).or_default();
        let trigger = triggers.update(service, &pods);
        let zone = |node: &str| {
            let node = state.get::<Node>(&Key::new("", node))?;
            selector::labels(&node.metadata).get(ZONE).cloned()
        };
        let sets = desired::sets(service, spec, &pods, zone);
        reconcile::plan(object, spec, &sets, &existing, trigger, &mut plan);
        plan
    }
}

/// Whether slices are made for a Service: those without a selector get theirs from somebody else.
fn is_managed(spec: &k8s_openapi::api::core::v1::ServiceSpec) -> bool {
    spec.selector.as_ref().is_some_and(|s| !s.is_empty())
        && spec.type_.as_deref() != Some("ExternalName")
}

/// The Service of a slice that is ours.
fn service_of(slice: &EndpointSlice) -> Option<ObjRef> {
    let labels = selector::labels(&slice.metadata);
    let name = labels.get(SERVICE_NAME)?;
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    (labels.get(MANAGED_BY).map(String::as_str) == Some(MANAGER))
        .then(|| ObjRef::new(Kind::Service, namespace, name))
}

fn services_of_pod(change: &Change, state: &State) -> Vec<ObjRef> {
    let pod = |object: &Option<Object>| match object {
        Some(Object::Pod(pod)) => Some(pod.clone()),
        _ => None,
    };
    let (old, new) = (pod(&change.old), pod(&change.new));
    if let (Some(old), Some(new)) = (&old, &new)
        && old.metadata.uid == new.metadata.uid
        && old.metadata.labels == new.metadata.labels
        && facts(old) == facts(new)
    {
        return Vec::new();
    }
    let mut found: Vec<ObjRef> = [old, new]
        .iter()
        .flatten()
        .flat_map(|pod| services(pod, state))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// What an endpoint shows of a Pod besides its name.
fn facts(pod: &Pod) -> impl PartialEq + use<> {
    let status = pod.status.as_ref();
    let ips = status.map(|s| (s.pod_ip.clone(), s.pod_ips.clone()));
    let node = pods::node_name(pod).map(str::to_owned);
    let ready = (pods::is_ready(pod), pods::ready_since(pod));
    (
        ips,
        node,
        ready,
        pods::is_terminating(pod),
        pods::is_finished(pod),
    )
}

fn services(pod: &Pod, state: &State) -> Vec<ObjRef> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let labels = selector::labels(&pod.metadata);
    state
        .within::<Service>(namespace)
        .filter(|service| {
            let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref());
            selector.is_some_and(|s| !s.is_empty() && selector::equals(s, labels))
        })
        .map(|service| ObjRef {
            kind: Kind::Service,
            key: Key::of(&service.metadata),
        })
        .collect()
}

fn zone_changed(change: &Change) -> bool {
    let zone = |object: &Option<Object>| {
        let meta = object.as_ref().map(Object::meta)?;
        selector::labels(meta).get(ZONE).cloned()
    };
    zone(&change.old) != zone(&change.new)
}

/// Whether `service` manages the slice by reference, too.
fn is_owned(slice: &EndpointSlice, service: &Object) -> bool {
    owner::controller_of(&slice.metadata).is_some_and(|owner| owner.uid == service.uid())
}

#[cfg(test)]
mod tests;
