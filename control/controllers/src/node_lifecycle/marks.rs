//! How a lost node is marked: conditions, taints, and the readiness of its Pods.

use k8s_openapi::api::core::v1::{Node, NodeCondition, PodCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::object::{Key, Kind, ObjRef, Object};
use crate::plan::{Clock, EventDraft, Op, Plan};
use crate::pods as pod_facts;
use crate::state::State;

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The conditions that a silent node can no longer vouch for.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

pub(super) fn ready(node: &Node) -> Option<&NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == "Ready")
}

pub(super) fn is_ready(node: &Node) -> bool {
    ready(node).is_some_and(|c| c.status == "True")
}

/// Plans conditions and taints of one node.
pub(super) fn plan(node: &Node, object: &Object, lost: bool, clock: Clock, plan: &mut Plan) {
    let status = ready(node).map_or("Unknown", |c| &c.status);
    if lost && (status != "Unknown" || ready(node).is_none()) {
        let body = json!({
            "metadata": {"uid": object.uid(), "resourceVersion": node.metadata.resource_version},
            "status": {"conditions": unknown_conditions(node, clock)},
        });
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let message = format!("Node {name} status is now: NodeNotReady");
        let op = Op::Patch {
            at: object.reference(),
            subresource: "status",
            body,
        };
        plan.push_with_event(op, EventDraft::normal(object, "NodeNotReady", message));
    }
    let status = if lost { "Unknown" } else { status };
    let never_reported = ready(node).is_none() && !lost;
    let wanted = match status {
        "True" => None,
        // A new node is not unreachable: it has not spoken yet.
        "Unknown" if !never_reported => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    let known = node
        .spec
        .as_ref()
        .and_then(|s| s.taints.clone())
        .unwrap_or_default();
    let cordoned = node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true);
    let taints = taints(&known, wanted, cordoned, never_reported, clock);
    if taints != known {
        // The version guards against taking away a taint that somebody adds meanwhile. A status written just
        // before has moved the version on, so the taints then come with the next plan.
        if plan.steps.is_empty() {
            let body = json!({
                "metadata": {"uid": object.uid(), "resourceVersion": node.metadata.resource_version},
                "spec": {"taints": taints},
            });
            plan.patch(object.reference(), "", body);
        }
    }
}

fn unknown_conditions(node: &Node, clock: Clock) -> Vec<NodeCondition> {
    let known = node.status.as_ref().and_then(|s| s.conditions.clone());
    let mut conditions = known.unwrap_or_default();
    for name in REPORTED {
        let place = conditions.iter_mut().find(|c| c.type_ == name);
        match place {
            Some(c) if c.status == "Unknown" => {}
            Some(c) => {
                c.status = "Unknown".to_owned();
                c.reason = Some("NodeStatusUnknown".to_owned());
                c.message = Some("Kubelet stopped posting node status.".to_owned());
                c.last_transition_time = Some(Time(clock.wall));
            }
            None => conditions.push(NodeCondition {
                type_: name.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(clock.wall)),
            }),
        }
    }
    conditions
}

/// The taints that a node should have: those of others, and ours as its condition asks.
fn taints(
    known: &[Taint],
    wanted: Option<&str>,
    cordoned: bool,
    new: bool,
    clock: Clock,
) -> Vec<Taint> {
    let mut all = Vec::new();
    if let Some(key) = wanted {
        all.push((key, "NoSchedule"));
        // A node that has not reported yet has no Pods to drive away.
        if !new {
            all.push((key, "NoExecute"));
        }
    }
    if cordoned {
        all.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |taint: &Taint| matches!(&*taint.key, NOT_READY | UNREACHABLE | UNSCHEDULABLE);
    let asked = |taint: &Taint| all.contains(&(&*taint.key, &*taint.effect));
    let mut taints: Vec<Taint> = known
        .iter()
        .filter(|t| !ours(t) || asked(t))
        .cloned()
        .collect();
    for (key, effect) in &all {
        if !taints.iter().any(|t| t.key == *key && t.effect == *effect) {
            taints.push(Taint {
                key: (*key).to_owned(),
                effect: (*effect).to_owned(),
                value: None,
                time_added: (*effect == "NoExecute").then_some(Time(clock.wall)),
            });
        }
    }
    taints
}

/// Marks the Pods of a node that is not ready as not ready, so that no Service sends traffic there.
pub(super) fn pods(node: &Node, object: &Object, state: &State, clock: Clock, plan: &mut Plan) {
    // Only a node that was marked: a new one has Pods whose readiness nobody has denied.
    if ready(node).is_none_or(|c| c.status == "True") {
        return;
    }
    let name = node.metadata.name.as_deref().unwrap_or_default();
    plan.parallel_from = Some(plan.steps.len());
    for pod in state.pods_on(name).filter(|pod| pod_facts::is_ready(pod)) {
        let condition = PodCondition {
            type_: "Ready".to_owned(),
            status: "False".to_owned(),
            reason: Some("NodeNotReady".to_owned()),
            message: Some(format!("node {name} is not ready")),
            last_transition_time: Some(Time(clock.wall)),
            ..PodCondition::default()
        };
        let body = json!({
            "metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
            "status": {"conditions": pod_facts::with_condition(pod, condition)},
        });
        let at = ObjRef {
            kind: Kind::Pod,
            key: Key::of(&pod.metadata),
        };
        let about = state.object(&at).unwrap_or(object);
        let event = EventDraft::warning(about, "NodeNotReady", "Node is not ready".to_owned());
        let op = Op::Patch {
            at,
            subresource: "status",
            body,
        };
        plan.push_with_event(op, event);
    }
}
