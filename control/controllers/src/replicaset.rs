//! ReplicaSets: as many Pods as asked for, no more and no fewer.

mod rank;
mod status;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::names;
use crate::namespace;
use crate::object::{Key, Kind, ObjRef, Object};
use crate::owner;
use crate::plan::{Clock, Controller, EventDraft, Op, Plan};
use crate::pods;
use crate::selector;
use crate::state::{Change, State};

/// Most Pods created or deleted in one go (Kubernetes' `BurstReplicas`).
const BURST: usize = 500;

/// The ReplicaSet controller.
#[derive(Default)]
pub(crate) struct ReplicaSets {
    /// Why Pods cannot be created or deleted at present; shown as condition `ReplicaFailure`.
    failures: HashMap<ObjRef, Failure>,
}

/// The last refusal.
#[derive(Debug, Clone, PartialEq)]
struct Failure {
    reason: &'static str,
    message: String,
}

impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        "replicaset-controller"
    }

    fn touched(&self, change: &Change, state: &State) -> Vec<ObjRef> {
        let mut touched = Vec::new();
        for object in [&change.old, &change.new].into_iter().flatten() {
            match object {
                Object::ReplicaSet(_) => touched.push(object.reference()),
                Object::Pod(pod) => touched.extend(managers(pod, state)),
                _ => {}
            }
        }
        touched.dedup();
        touched
    }

    fn plan(&mut self, key: &ObjRef, state: &State, clock: Clock) -> Plan {
        let (Some(set), Some(object)) = (state.get::<ReplicaSet>(&key.key), state.object(key))
        else {
            self.failures.remove(key);
            return Plan::default();
        };
        let Some(spec) = &set.spec else {
            return Plan::default();
        };
        let claim = owner::claim::<Pod>(object, &spec.selector, state, |pod| &pod.metadata);
        let mut plan = Plan::default();
        for change in claim.changes {
            plan.push(change);
        }
        if !plan.steps.is_empty() {
            // What is adopted or released decides how many are missing: first that, then a new plan.
            return plan;
        }
        let active: Vec<&Arc<Pod>> = claim
            .owned
            .iter()
            .filter(|pod| !pods::is_finished(pod) && !pods::is_terminating(pod))
            .collect();
        let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
        if active.len() == wanted {
            self.failures.remove(key);
        }
        let status = status::plan(set, &active, self.failures.get(key), clock, &mut plan);
        if let Some(status) = status {
            let body = json!({"metadata": {"uid": set.metadata.uid}, "status": status});
            plan.patch(key.clone(), "status", body);
        }
        let namespace = &*key.key.namespace;
        if set.metadata.deletion_timestamp.is_some() || namespace::is_terminating(state, namespace)
        {
            return plan;
        }
        plan.parallel_from = Some(plan.steps.len());
        if active.len() < wanted {
            create(object, spec, (wanted - active.len()).min(BURST), &mut plan);
        } else if active.len() > wanted {
            let excess = (active.len() - wanted).min(BURST);
            for pod in rank::victims(&active, &related(set, state), excess) {
                delete(object, pod, &mut plan);
            }
        }
        plan
    }

    fn failed(&mut self, key: &ObjRef, op: &Op, error: &str, state: &State) -> Option<EventDraft> {
        let (reason, verb) = match op {
            Op::Create { .. } => ("FailedCreate", "creating"),
            Op::Delete { .. } => ("FailedDelete", "deleting"),
            _ => return None,
        };
        let message = error.to_owned();
        self.failures
            .insert(key.clone(), Failure { reason, message });
        let about = state.object(key)?;
        let message = format!("Error {verb}: {error}");
        Some(EventDraft::warning(about, reason, message))
    }
}

/// The ReplicaSets that a Pod concerns: its manager, or for an orphan all that would adopt it.
fn managers(pod: &Pod, state: &State) -> Vec<ObjRef> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(owner) = owner::controller_of(&pod.metadata) {
        let at = ObjRef::of_owner(owner, namespace);
        return at
            .filter(|at| at.kind == Kind::ReplicaSet)
            .into_iter()
            .collect();
    }
    let labels = selector::labels(&pod.metadata);
    state
        .within::<ReplicaSet>(namespace)
        .filter(|set| {
            let spec = set.spec.as_ref();
            spec.is_some_and(|spec| selector::matches(&spec.selector, labels))
        })
        .map(|set| ObjRef {
            kind: Kind::ReplicaSet,
            key: Key::of(&set.metadata),
        })
        .collect()
}

/// Active Pods of all ReplicaSets under the same owner, to see where Pods of one application double up.
fn related(set: &ReplicaSet, state: &State) -> Vec<Arc<Pod>> {
    let uid = |set: &ReplicaSet| set.metadata.uid.clone().unwrap_or_default();
    let siblings: Vec<String> = match owner::controller_of(&set.metadata) {
        Some(owner) => state
            .owned::<ReplicaSet>(&owner.uid)
            .map(|set| uid(set))
            .collect(),
        None => vec![uid(set)],
    };
    siblings
        .iter()
        .flat_map(|uid| state.owned::<Pod>(uid))
        .filter(|pod| !pods::is_finished(pod) && !pods::is_terminating(pod))
        .cloned()
        .collect()
}

fn create(set: &Object, spec: &ReplicaSetSpec, count: usize, plan: &mut Plan) {
    let meta = set.meta();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let base = format!("{}-", meta.name.as_deref().unwrap_or_default());
    let template = spec.template.clone().unwrap_or_default();
    let template_meta = template.metadata.unwrap_or_default();
    let body = json!({
        "metadata": {
            "generateName": base,
            "labels": template_meta.labels,
            "annotations": template_meta.annotations,
            "finalizers": template_meta.finalizers,
            "ownerReferences": [owner::controlled_by(set)],
        },
        "spec": template.spec,
    });
    let mut rng = rand::rng();
    for _ in 0..count {
        let name = names::generate(&base, &mut rng);
        let event = EventDraft::normal(set, "SuccessfulCreate", format!("Created pod: {name}"));
        let at = ObjRef::new(Kind::Pod, namespace, &name);
        let body = body.clone();
        plan.push_with_event(Op::Create { at, body }, event);
    }
}

fn delete(set: &Object, pod: &Pod, plan: &mut Plan) {
    let message = format!("Deleted pod: {}", Key::of(&pod.metadata).name);
    let op = Op::delete(Kind::Pod, &pod.metadata);
    plan.push_with_event(op, EventDraft::normal(set, "SuccessfulDelete", message));
}

#[cfg(test)]
mod tests;
