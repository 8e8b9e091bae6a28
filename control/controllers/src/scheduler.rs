//! The scheduler: filters the nodes that can take a Pod, scores them, binds the Pod to the best.

mod filter;
mod resources;
mod score;

pub(crate) use filter::tolerates;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::namespace;
use crate::object::{Key, Kind, ObjRef, Object};
use crate::plan::{Clock, Controller, EventDraft, Op, Plan};
use crate::pods;
use crate::state::{Change, State};

/// The scheduler that Pods ask for unless they name another.
const NAME: &str = "default-scheduler";
/// A Pod that fits nowhere is tried again at least this often.
const RETRY: Duration = Duration::from_secs(60);

/// The scheduler.
pub(crate) struct Scheduler;

impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Each choice must see the ones before it.
    fn workers(&self) -> usize {
        1
    }

    fn touched(&self, change: &Change, state: &State) -> Vec<ObjRef> {
        match change.object() {
            Some(Object::Pod(pod)) => {
                let mut touched = Vec::new();
                if is_waiting(pod) && change.new.is_some() {
                    touched.push(pod_ref(pod));
                }
                // A Pod that ends makes room.
                let was_there = matches!(&change.old, Some(Object::Pod(old))
                    if pods::node_name(old).is_some() && !pods::is_finished(old));
                if was_there && (change.new.is_none() || pods::is_finished(pod)) {
                    touched.extend(waiting(state));
                }
                touched
            }
            Some(Object::Node(_)) if node_matters(change) => waiting(state),
            _ => Vec::new(),
        }
    }

    fn plan(&mut self, key: &ObjRef, state: &State, clock: Clock) -> Plan {
        let mut plan = Plan::default();
        let (Some(pod), Some(object)) = (state.get::<Pod>(&key.key), state.object(key)) else {
            return plan;
        };
        if !is_waiting(pod) || namespace::is_terminating(state, &key.key.namespace) {
            return plan;
        }
        let nodes: Vec<&Arc<Node>> = state.all::<Node>().collect();
        match choose(pod, &nodes, state) {
            Ok(node) => {
                let Key { namespace, name } = &key.key;
                let message = format!("Successfully assigned {namespace}/{name} to {node}");
                let op = Op::Bind {
                    pod: key.key.clone(),
                    uid: pod.metadata.uid.clone().unwrap_or_default(),
                    node,
                };
                plan.push_with_event(op, EventDraft::normal(object, "Scheduled", message));
            }
            Err(message) => {
                plan.retry_in(RETRY);
                report(pod, object, &message, clock, &mut plan);
            }
        }
        plan
    }
}

/// The best node, or the sentence that says why there is none.
fn choose(pod: &Pod, nodes: &[&Arc<Node>], state: &State) -> Result<String, String> {
    if nodes.is_empty() {
        return Err("no nodes available to schedule pods".to_owned());
    }
    let mut fitting = Vec::new();
    let mut reasons = Vec::new();
    for node in nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let load = resources::Load::of(state.pods_on(name).map(|pod| &**pod));
        let found = filter::reasons(pod, node, &load, state.pods_on(name).map(|pod| &**pod));
        if found.is_empty() {
            fitting.push((score::score(pod, node, &load, state), name));
        } else {
            reasons.extend(found);
        }
    }
    match fitting.into_iter().min() {
        Some((_, name)) => Ok(name.to_owned()),
        None => Err(filter::summary(nodes.len(), reasons)),
    }
}

/// Says on the Pod, and as an Event, why it waits; once for each reason.
fn report(pod: &Pod, object: &Object, message: &str, clock: Clock, plan: &mut Plan) {
    let known = pods::condition(pod, "PodScheduled");
    if known.is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(message)) {
        return;
    }
    let since = known
        .filter(|c| c.status == "False")
        .and_then(|c| c.last_transition_time.clone());
    let condition = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(since.unwrap_or(Time(clock.wall))),
        ..PodCondition::default()
    };
    let body = json!({
        "metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
        "status": {"conditions": pods::with_condition(pod, condition)},
    });
    plan.patch(object.reference(), "status", body);
    let event = EventDraft::warning(object, "FailedScheduling", message.to_owned());
    plan.events.push(event);
}

/// Whether a Pod waits for this scheduler.
fn is_waiting(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    pods::node_name(pod).is_none()
        && !pods::is_terminating(pod)
        && !pods::is_finished(pod)
        && spec
            .scheduler_name
            .as_deref()
            .is_none_or(|name| name == NAME || name.is_empty())
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
}

fn waiting(state: &State) -> Vec<ObjRef> {
    let pods = state.all::<Pod>().filter(|pod| is_waiting(pod));
    pods.map(|pod| pod_ref(pod)).collect()
}

fn pod_ref(pod: &Pod) -> ObjRef {
    ObjRef {
        kind: Kind::Pod,
        key: Key::of(&pod.metadata),
    }
}

/// Whether a Node changed in a way that a Pod may wait for; heartbeats are not.
fn node_matters(change: &Change) -> bool {
    let (Some(Object::Node(old)), Some(Object::Node(new))) = (&change.old, &change.new) else {
        return change.new.is_some();
    };
    let allocatable = |node: &Node| node.status.as_ref().and_then(|s| s.allocatable.clone());
    old.spec != new.spec
        || old.metadata.labels != new.metadata.labels
        || allocatable(old) != allocatable(new)
        || filter::is_ready(old) != filter::is_ready(new)
}

#[cfg(test)]
mod tests;
