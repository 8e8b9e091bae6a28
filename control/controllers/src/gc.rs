//! Garbage collection along owner references.
//!
//! An object whose owners are all gone goes too. `propagationPolicy` arrives here as finalizers of the owner:
//! `foregroundDeletion` keeps it until its blocking dependents are gone, `orphan` until they forgot it; with
//! neither (background) the owner is gone at once and its dependents follow.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

use crate::object::{ObjRef, Object};
use crate::owner;
use crate::plan::{Clock, Controller, Op, Plan, Propagation};
use crate::state::{Change, State};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// The garbage collector.
pub(crate) struct GarbageCollector;

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector-controller"
    }

    fn touched(&self, change: &Change, state: &State) -> Vec<ObjRef> {
        let mut touched = Vec::new();
        if let Some(object) = &change.new
            && (object.meta().owner_references.is_some() || has_our_finalizer(object))
        {
            touched.push(object.reference());
        }
        // A successor of the same name does not keep the dependents of its predecessor.
        let replaced = match (&change.old, &change.new) {
            (Some(old), Some(new)) => old.uid() != new.uid(),
            (Some(_), None) => true,
            _ => false,
        };
        if let Some(old) = &change.old {
            let waits = change.new.as_ref().is_some_and(is_waiting_for_dependents);
            if replaced || waits {
                touched.extend(state.dependents(old.uid()).map(Object::reference));
            }
            // Owners that wait for this dependent look again.
            let namespace = old.meta().namespace.as_deref().unwrap_or_default();
            let owners = old.meta().owner_references.iter().flatten();
            touched.extend(
                owners
                    .filter_map(|owner| ObjRef::of_owner(owner, namespace))
                    .filter(|at| state.object(at).is_some_and(has_our_finalizer)),
            );
        }
        touched
    }

    fn plan(&mut self, key: &ObjRef, state: &State, _clock: Clock) -> Plan {
        let Some(object) = state.object(key) else {
            return Plan::default();
        };
        if object.meta().deletion_timestamp.is_none() {
            return collect(object, state);
        }
        if has_finalizer(object, ORPHAN) {
            orphan_dependents(object, state)
        } else if has_finalizer(object, FOREGROUND) {
            delete_dependents(object, state)
        } else {
            Plan::default()
        }
    }
}

/// How an owner reference stands.
enum Standing {
    /// The owner is there, or of a kind that we do not follow.
    Solid,
    /// The owner is there and waits for this object to go.
    Waiting,
    Absent(ObjRef),
}

fn standing(owner: &OwnerReference, namespace: &str, state: &State) -> Standing {
    let Some(at) = ObjRef::of_owner(owner, namespace) else {
        return Standing::Solid;
    };
    match state.object(&at) {
        Some(found) if found.uid() != owner.uid => Standing::Absent(at),
        Some(found) if is_waiting_for_dependents(found) => Standing::Waiting,
        Some(_) => Standing::Solid,
        None => Standing::Absent(at),
    }
}

/// Deletes an object without owners left, or takes the lost ones out of its list.
fn collect(object: &Object, state: &State) -> Plan {
    let mut plan = Plan::default();
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    let (mut kept, mut waiting, mut lost) = (Vec::new(), 0, 0);
    for owner in object.meta().owner_references.iter().flatten() {
        match standing(owner, namespace, state) {
            Standing::Solid => kept.push(owner.clone()),
            Standing::Waiting => waiting += 1,
            Standing::Absent(at) => {
                lost += 1;
                // The image may not have the owner yet; ask before anything is lost.
                plan.push(Op::VerifyAbsent {
                    at,
                    uid: Some(owner.uid.clone()),
                });
            }
        }
    }
    if lost + waiting == 0 {
        return Plan::default();
    }
    if !kept.is_empty() {
        plan.push(owner::patch_owners(
            object.reference(),
            object.meta(),
            &kept,
        ));
        return plan;
    }
    let has_dependents = state.dependents(object.uid()).next().is_some();
    let propagation = if has_finalizer(object, ORPHAN) {
        Propagation::Orphan
    } else if has_finalizer(object, FOREGROUND) || (waiting > 0 && has_dependents) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    plan.push(delete(object, propagation));
    plan
}

fn orphan_dependents(owner: &Object, state: &State) -> Plan {
    let mut plan = Plan::default();
    for dependent in state.dependents(owner.uid()) {
        let mut owners = dependent
            .meta()
            .owner_references
            .clone()
            .unwrap_or_default();
        owners.retain(|o| o.uid != owner.uid());
        plan.push(owner::patch_owners(
            dependent.reference(),
            dependent.meta(),
            &owners,
        ));
    }
    plan.push(without_finalizer(owner, ORPHAN));
    plan
}

fn delete_dependents(owner: &Object, state: &State) -> Plan {
    let mut plan = Plan::default();
    let blocked = state.dependents(owner.uid()).any(|dependent| {
        let mut owners = dependent.meta().owner_references.iter().flatten();
        owners.any(|o| o.uid == owner.uid() && o.block_owner_deletion == Some(true))
    });
    // The dependents themselves are planned one by one: they may have other owners.
    if !blocked {
        plan.push(without_finalizer(owner, FOREGROUND));
    }
    plan
}

fn delete(object: &Object, propagation: Propagation) -> Op {
    Op::Delete {
        at: object.reference(),
        uid: object.uid().to_owned(),
        propagation,
        grace: None,
    }
}

fn without_finalizer(object: &Object, finalizer: &str) -> Op {
    let meta = object.meta();
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    finalizers.retain(|f| f != finalizer);
    Op::Patch {
        at: object.reference(),
        subresource: "",
        body: json!({"metadata": {
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
            "finalizers": finalizers,
        }}),
    }
}

fn has_finalizer(object: &Object, finalizer: &str) -> bool {
    let mut finalizers = object.meta().finalizers.iter().flatten();
    finalizers.any(|f| f == finalizer)
}

fn has_our_finalizer(object: &Object) -> bool {
    has_finalizer(object, FOREGROUND) || has_finalizer(object, ORPHAN)
}

fn is_waiting_for_dependents(object: &Object) -> bool {
    object.meta().deletion_timestamp.is_some() && has_finalizer(object, FOREGROUND)
}

#[cfg(test)]
mod tests;
