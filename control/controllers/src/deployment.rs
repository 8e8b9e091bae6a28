//! Deployments: one ReplicaSet for each version of the Pod template, and the way from one to the next.

mod revision;
mod rolling;
mod scale;
mod status;
mod view;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::namespace;
use crate::object::{Key, Kind, ObjRef, Object};
use crate::owner;
use crate::plan::{Clock, Controller, Op, Plan};
use crate::pods;
use crate::selector;
use crate::state::{Change, State};
use view::View;

/// The Deployment controller.
pub(crate) struct Deployments;

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn touched(&self, change: &Change, state: &State) -> Vec<ObjRef> {
        let mut touched = Vec::new();
        for object in [&change.old, &change.new].into_iter().flatten() {
            match object {
                Object::Deployment(_) => touched.push(object.reference()),
                Object::ReplicaSet(set) => touched.extend(managers(set, state)),
                // The Recreate strategy waits for the last old Pod.
                Object::Pod(pod) if change.new.is_none() => touched.extend(of_pod(pod, state)),
                _ => {}
            }
        }
        touched.dedup();
        touched
    }

    fn plan(&mut self, key: &ObjRef, state: &State, clock: Clock) -> Plan {
        let (Some(deployment), Some(object)) =
            (state.get::<Deployment>(&key.key), state.object(key))
        else {
            return Plan::default();
        };
        let Some(spec) = &deployment.spec else {
            return Plan::default();
        };
        let claim = owner::claim::<ReplicaSet>(object, &spec.selector, state, |set| &set.metadata);
        let mut plan = Plan::default();
        for change in claim.changes {
            plan.push(change);
        }
        if !plan.steps.is_empty() {
            return plan;
        }
        let view = View::new(deployment, object, spec, claim.owned);
        if deployment.metadata.deletion_timestamp.is_some()
            || namespace::is_terminating(state, &key.key.namespace)
        {
            status::sync(&view, None, clock, &mut plan);
            return plan;
        }
        decide(&view, state, clock, &mut plan);
        plan
    }
}

/// One step of the way. Each write changes what the next plan sees, so every branch ends after its own writes.
fn decide(view: &View<'_>, state: &State, clock: Clock, plan: &mut Plan) {
    if view.is_paused() || view.is_scaling() {
        scale::sync(view, plan);
        if plan.steps.is_empty() && view.is_paused() {
            cleanup(view, plan);
        }
        status::sync(view, None, clock, plan);
        return;
    }
    let mut created = None;
    match view.new_set() {
        None if view.is_recreate() && !old_pods_gone(view, state, plan) => {}
        None => created = revision::create(view, state, plan),
        Some(set) if revision::refresh(view, set, plan) => {}
        Some(set) if view.is_recreate() => {
            if old_pods_gone(view, state, plan) {
                scale::set_replicas(view, set, view.replicas(), plan);
            }
        }
        Some(set) => rolling::step(view, set, plan),
    }
    if plan.steps.is_empty() && view.is_complete() {
        cleanup(view, plan);
    }
    status::sync(view, created.as_deref(), clock, plan);
}

/// Scales old ReplicaSets to nothing; true once none of their Pods runs any more.
fn old_pods_gone(view: &View<'_>, state: &State, plan: &mut Plan) -> bool {
    let mut gone = true;
    for set in view.old_sets() {
        if view::replicas(set) > 0 {
            scale::set_replicas(view, set, 0, plan);
            gone = false;
        }
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        gone &= !state.owned::<Pod>(uid).any(|pod| !pods::is_finished(pod));
    }
    gone
}

/// Deletes old, empty ReplicaSets beyond `revisionHistoryLimit`, the oldest revision first.
fn cleanup(view: &View<'_>, plan: &mut Plan) {
    let limit = view.spec.revision_history_limit.unwrap_or(10);
    let keep = usize::try_from(limit).unwrap_or(0);
    let mut sets: Vec<&Arc<ReplicaSet>> =
        view.old_sets().filter(|set| view::is_idle(set)).collect();
    sets.sort_by_key(|set| revision::of(&set.metadata));
    let excess = sets.len().saturating_sub(keep);
    for set in &sets[..excess] {
        plan.push(Op::delete(Kind::ReplicaSet, &set.metadata));
    }
}

/// The Deployments that a ReplicaSet concerns.
fn managers(set: &ReplicaSet, state: &State) -> Vec<ObjRef> {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(owner) = owner::controller_of(&set.metadata) {
        let at = ObjRef::of_owner(owner, namespace);
        return at
            .filter(|at| at.kind == Kind::Deployment)
            .into_iter()
            .collect();
    }
    let labels = selector::labels(&set.metadata);
    state
        .within::<Deployment>(namespace)
        .filter(|deployment| {
            let spec = deployment.spec.as_ref();
            spec.is_some_and(|spec| selector::matches(&spec.selector, labels))
        })
        .map(|deployment| ObjRef {
            kind: Kind::Deployment,
            key: Key::of(&deployment.metadata),
        })
        .collect()
}

fn of_pod(pod: &Pod, state: &State) -> Vec<ObjRef> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let set =
        owner::controller_of(&pod.metadata).and_then(|owner| ObjRef::of_owner(owner, namespace));
    match set.and_then(|at| state.get::<ReplicaSet>(&at.key)) {
        Some(set) => managers(set, state),
        None => Vec::new(),
    }
}

/// Status conditions and annotations are written with the uid, so that a successor of the same name is safe.
fn guarded(uid: Option<&String>, mut body: serde_json::Value) -> serde_json::Value {
    body["metadata"]["uid"] = json!(uid);
    body
}

#[cfg(test)]
mod tests;
