//! Removes Pods that are bound to a node that does not exist: no agent is left to report them gone.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::config::ControllersConfig;
use crate::object::{Key, Kind, ObjRef, Object};
use crate::plan::{Clock, Controller, Op, Plan, Propagation};
use crate::pods;
use crate::state::{Change, State};

/// The controller of orphaned Pods. Works on node names.
pub(crate) struct OrphanedPods {
    grace: Duration,
    /// Since when a node is missing.
    missing: HashMap<Key, Duration>,
}

impl OrphanedPods {
    pub(crate) fn new(config: &ControllersConfig) -> Self {
        Self {
            grace: config.orphaned_pod_grace,
            missing: HashMap::new(),
        }
    }
}

impl Controller for OrphanedPods {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn touched(&self, change: &Change, state: &State) -> Vec<ObjRef> {
        let node = match change.object() {
            Some(Object::Pod(pod)) => pods::node_name(pod).map(|node| Key::new("", node)),
            // Registration and removal matter, heartbeats do not.
            Some(node @ Object::Node(_)) if change.old.is_none() || change.new.is_none() => {
                return vec![node.reference()];
            }
            _ => None,
        };
        let missing = node.filter(|key| state.get::<Node>(key).is_none());
        missing
            .map(|key| ObjRef {
                kind: Kind::Node,
                key,
            })
            .into_iter()
            .collect()
    }

    fn plan(&mut self, key: &ObjRef, state: &State, clock: Clock) -> Plan {
        let mut plan = Plan::default();
        let node = &*key.key.name;
        if state.get::<Node>(&key.key).is_some() || state.pods_on(node).next().is_none() {
            self.missing.remove(&key.key);
            return plan;
        }
        let since = *self.missing.entry(key.key.clone()).or_insert(clock.steady);
        let left = self
            .grace
            .saturating_sub(clock.steady.saturating_sub(since));
        if !left.is_zero() {
            plan.retry_in(left);
            return plan;
        }
        plan.push(Op::VerifyAbsent {
            at: key.clone(),
            uid: None,
        });
        plan.parallel_from = Some(1);
        for pod in state.pods_on(node) {
            plan.push(remove_now(pod));
        }
        plan
    }
}

fn remove_now(pod: &Pod) -> Op {
    Op::Delete {
        at: ObjRef {
            kind: Kind::Pod,
            key: Key::of(&pod.metadata),
        },
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        propagation: Propagation::Background,
        grace: Some(0),
    }
}

#[cfg(test)]
mod tests;
