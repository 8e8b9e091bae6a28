//! What the Node object should say. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::api::ObjectMeta;
use serde_json::{Map, Value, json};

use super::facts::Machine;
use crate::pod::view::rfc3339;

#[cfg(test)]
mod tests;

/// kubelet's default of `maxPods`.
const MAX_PODS: &str = "110";

/// Version reported as the kubelet's: what of its API this agent follows, and that it is us.
const KUBELET_VERSION: &str = concat!("v1.33.0-seaway.", env!("CARGO_PKG_VERSION"));

/// Heartbeat of conditions that do not change (kubelet's `nodeStatusReportFrequency`).
const HEARTBEAT: SignedDuration = SignedDuration::from_mins(5);

/// Who the node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    /// Port of the log endpoint.
    pub port: u16,
}

/// Whether the node can run Pods, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    pub problem: Option<String>,
}

impl Readiness {
    /// Ready, unless the network has a problem.
    pub fn of(problem: Option<String>) -> Self {
        Self { problem }
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            None => f.write_str("seaway agent is posting ready status"),
            Some(problem) => write!(
                f,
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
                 message:Network plugin returns error: cni config uninitialized ({problem})"
            ),
        }
    }
}

/// The object as first registered; everything else is status.
pub(super) fn new_node(identity: &Identity) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(identity.name.clone()),
            labels: Some(labels(identity)),
            ..ObjectMeta::default()
        },
        ..Node::default()
    }
}

/// Well-known labels of a node (kubernetes.io/docs/reference/labels-annotations-taints).
fn labels(identity: &Identity) -> BTreeMap<String, String> {
    [
        ("kubernetes.io/hostname", identity.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// Labels of ours that are missing or different; those of others are left alone.
pub(super) fn missing_labels(identity: &Identity, node: &Node) -> Option<BTreeMap<String, String>> {
    let mut labels = labels(identity);
    if let Some(present) = &node.metadata.labels {
        labels.retain(|key, value| present.get(key) != Some(value));
    }
    (!labels.is_empty()).then_some(labels)
}

/// The status fields that differ from what they should be, for a JSON merge patch; `None` if all is well.
pub(super) fn status_patch(
    identity: &Identity,
    machine: &Machine,
    readiness: &Readiness,
    node: &Node,
    now: Timestamp,
) -> Option<Value> {
    let present = serde_json::to_value(&node.status).unwrap_or_default();
    let capacity = json!({
        "cpu": machine.cpus.to_string(), "memory": format!("{}Ki", machine.memory_kib), "pods": MAX_PODS,
    });
    let addresses = identity
        .addresses
        .iter()
        .map(|ip| json!({"type": "InternalIP", "address": ip.to_string()}))
        .chain([json!({"type": "Hostname", "address": identity.name})]);
    let wanted = json!({
        "addresses": addresses.collect::<Vec<Value>>(),
        "allocatable": capacity,
        "capacity": capacity,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": identity.port}},
        "nodeInfo": {
            "architecture": architecture(),
            "bootID": machine.boot_id,
            "containerRuntimeVersion": concat!("seaway://", env!("CARGO_PKG_VERSION")),
            "kernelVersion": machine.kernel,
            "kubeProxyVersion": "",
            "kubeletVersion": KUBELET_VERSION,
            "machineID": machine.machine_id,
            "operatingSystem": "linux",
            "osImage": machine.os_image,
            "systemUUID": machine.machine_id,
        },
    });
    let mut patch = Map::new();
    if let Value::Object(wanted) = wanted {
        patch.extend(
            wanted
                .into_iter()
                .filter(|(key, value)| !covers(&present[key], value)),
        );
    }
    if let Some(conditions) = conditions(readiness, &present["conditions"], now) {
        patch.insert("conditions".to_owned(), conditions);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Whether `present` has everything that `wanted` has; others may have added to it.
fn covers(present: &Value, wanted: &Value) -> bool {
    match (present, wanted) {
        (Value::Object(present), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, value)| covers(present.get(key).unwrap_or(&Value::Null), value)),
        // The typed Node drops empty strings of nodeInfo in neither direction, and a list is ours as a whole.
        (present, wanted) => present == wanted,
    }
}

/// Our four conditions, with those of others (NetworkUnavailable) passed on; `None` if there is no news and no
/// heartbeat due.
fn conditions(readiness: &Readiness, present: &Value, now: Timestamp) -> Option<Value> {
    let message = readiness.to_string();
    let (status, reason) = match readiness.problem {
        None => ("True", "KubeletReady"),
        Some(_) => ("False", "KubeletNotReady"),
    };
    let own = [
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "the agent does not limit memory",
        ),
        (
            "DiskPressure",
            "False",
            "KubeletHasNoDiskPressure",
            "the agent does not limit disk space",
        ),
        (
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "the agent does not limit processes",
        ),
        ("Ready", status, reason, message.as_str()),
    ];
    let empty = Vec::new();
    let present = present.as_array().unwrap_or(&empty);
    let find = |kind: &str| present.iter().find(|condition| condition["type"] == kind);
    let fresh = |condition: &Value| {
        condition["lastHeartbeatTime"]
            .as_str()
            .and_then(|time| time.parse::<Timestamp>().ok())
            .is_some_and(|time| now.duration_since(time) < HEARTBEAT)
    };
    let settled = own.iter().all(|(kind, status, reason, message)| {
        find(kind).is_some_and(|c| {
            c["status"] == *status && c["reason"] == *reason && c["message"] == *message && fresh(c)
        })
    });
    if settled {
        return None;
    }
    let mut all: Vec<Value> = own
        .iter()
        .map(|(kind, status, reason, message)| {
            let kept = find(kind).filter(|c| c["status"] == *status);
            let since = kept.and_then(|c| c["lastTransitionTime"].as_str());
            json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": rfc3339(now),
                "lastTransitionTime": since.map_or_else(|| rfc3339(now), str::to_owned),
            })
        })
        .collect();
    let foreign = present
        .iter()
        .filter(|condition| !own.iter().any(|(kind, ..)| condition["type"] == *kind));
    all.extend(foreign.cloned());
    Some(all.into())
}

/// The architecture in Go's words, which the API uses.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
