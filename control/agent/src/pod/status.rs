//! What to tell the API about a Pod. Pure.
//!
//! The words follow kubelet (`pkg/kubelet/kubelet_pods.go`, `status/generate.go` of Kubernetes 1.33), since people
//! and controllers know those.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::{Map, Value, json};

use super::facts::{ContainerFacts, Exit, Facts, Sandbox};
use super::machine::{Outcome, outcome, restart_at};
use super::view::{RestartPolicy, Stop, View, container, rfc3339};

#[cfg(test)]
mod tests;

/// Condition types that this agent owns; others (readiness gates) are passed on as they are.
const OWN_CONDITIONS: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

/// What a status depends on.
#[derive(Debug)]
pub struct Input<'a> {
    pub pod: &'a Pod,
    pub view: &'a View,
    pub facts: &'a Facts,
    pub node_ips: &'a [IpAddr],
    /// The status sent last, if any: newer than the one in `pod`.
    pub sent: Option<&'a Value>,
    pub now: Timestamp,
}

/// The whole `status`, for a JSON merge patch.
pub fn status(input: &Input<'_>) -> Value {
    let Input {
        pod, view, facts, ..
    } = input;
    let before = match input.sent {
        Some(sent) => sent.clone(),
        None => serde_json::to_value(&pod.status).unwrap_or_default(),
    };
    let phase = phase(pod, view, facts);
    let mut status = Map::new();
    status.insert("phase".to_owned(), phase.into());
    let start = before.get("startTime").filter(|time| !time.is_null());
    let start = start.cloned().unwrap_or_else(|| rfc3339(input.now).into());
    status.insert("startTime".to_owned(), start);
    status.insert("hostIP".to_owned(), first(input.node_ips));
    status.insert("hostIPs".to_owned(), list(input.node_ips));
    match &facts.sandbox {
        Sandbox::Ready { ips } => {
            status.insert("podIP".to_owned(), first(ips));
            status.insert("podIPs".to_owned(), list(ips));
        }
        // A Pod that waits for a new sandbox has no address; one that has ended keeps its last, as kubelet does.
        Sandbox::Absent { .. }
            if view.stop.is_none() && phase != "Succeeded" && phase != "Failed" =>
        {
            status.insert("podIP".to_owned(), Value::Null);
            status.insert("podIPs".to_owned(), Value::Null);
        }
        Sandbox::Absent { .. } => {}
    }
    let statuses = |names: &[String]| -> Vec<Value> {
        names
            .iter()
            .map(|name| container_status(input, name))
            .collect()
    };
    status.insert(
        "containerStatuses".to_owned(),
        statuses(&view.containers).into(),
    );
    if !view.init.is_empty() {
        status.insert(
            "initContainerStatuses".to_owned(),
            statuses(&view.init).into(),
        );
    }
    status.insert("conditions".to_owned(), conditions(input, phase, &before));
    Value::Object(status)
}

fn first(ips: &[IpAddr]) -> Value {
    ips.first().map_or(Value::Null, |ip| ip.to_string().into())
}

fn list(ips: &[IpAddr]) -> Value {
    ips.iter().map(|ip| json!({"ip": ip.to_string()})).collect()
}

/// The phase, after kubelet's `getPhase`.
pub fn phase(pod: &Pod, view: &View, facts: &Facts) -> &'static str {
    let reported = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    // An end is final, whoever declared it.
    match reported {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    match outcome(view, facts) {
        Some(Outcome::Succeeded) => return "Succeeded",
        Some(Outcome::Failed) => return "Failed",
        None => {}
    }
    let started = |name: &String| facts.containers.get(name).is_some_and(|c| c.attempt > 0);
    let stopping = matches!(view.stop, Some(Stop::Deleted | Stop::Gone));
    if view.containers.iter().all(started) || stopping && reported == Some("Running") {
        "Running"
    } else {
        "Pending"
    }
}

fn container_status(input: &Input<'_>, name: &str) -> Value {
    let default = ContainerFacts::default();
    let facts = input.facts.containers.get(name).unwrap_or(&default);
    let image = container(input.pod, name).and_then(|c: &Container| c.image.clone());
    let running = facts.running.as_ref();
    let (state, last_state) = states(input, name, facts);
    let uid = input.pod.metadata.uid.as_deref().unwrap_or_default();
    let is_init = input.view.init.iter().any(|init| init == name);
    let ready = if is_init {
        facts.exit.as_ref().is_some_and(|exit| exit.code == 0)
    } else {
        running.is_some_and(|running| running.ready)
    };
    let mut status = json!({
        "name": name,
        "image": image.unwrap_or_default(),
        "imageID": "",
        "ready": ready,
        "started": running.is_some(),
        "restartCount": facts.attempt.saturating_sub(1),
        "state": state,
        "lastState": last_state,
    });
    if facts.attempt > 0 {
        status["containerID"] = format!("seaway://{uid}/{name}/{}", facts.attempt).into();
    }
    status
}

/// `state` and `lastState`.
fn states(input: &Input<'_>, name: &str, facts: &ContainerFacts) -> (Value, Value) {
    let terminated = |exit: Option<&Exit>| exit.map_or_else(|| json!({}), terminated);
    if let Some(running) = &facts.running {
        let state = json!({"running": {"startedAt": rfc3339(running.started_at)}});
        return (state, terminated(facts.last_exit.as_ref()));
    }
    let waiting = |reason: &str, message: Option<String>| {
        let mut waiting = json!({"reason": reason});
        if let Some(message) = message {
            waiting["message"] = message.into();
        }
        json!({ "waiting": waiting })
    };
    let stopped = input.view.stop.is_some();
    if let Some(failure) = &facts.start_failure
        && !stopped
    {
        let last = facts.exit.as_ref().or(facts.last_exit.as_ref());
        let message = Some(failure.failure.message.clone());
        return (waiting(&failure.reason, message), terminated(last));
    }
    let Some(exit) = &facts.exit else {
        let reason =
            if input.view.init.is_empty() || input.view.init.iter().any(|init| init == name) {
                "ContainerCreating"
            } else {
                "PodInitializing"
            };
        return (waiting(reason, None), json!({}));
    };
    let init = input.view.init.iter().any(|init| init == name);
    let policy = match input.view.restart_policy {
        RestartPolicy::Always if init => RestartPolicy::OnFailure,
        policy => policy,
    };
    match restart_at(policy, facts).filter(|_| !stopped) {
        Some(due) if due > input.now => {
            let delay = due.duration_since(exit.finished_at).as_secs();
            let (pod, namespace) = (&input.pod.metadata.name, &input.pod.metadata.namespace);
            let message = format!(
                "back-off {delay}s restarting failed container={name} pod={}_{}",
                pod.as_deref().unwrap_or_default(),
                namespace.as_deref().unwrap_or_default()
            );
            (
                waiting("CrashLoopBackOff", Some(message)),
                terminated(Some(exit)),
            )
        }
        _ => (terminated(Some(exit)), terminated(facts.last_exit.as_ref())),
    }
}

fn terminated(exit: &Exit) -> Value {
    let mut state = json!({
        "exitCode": exit.code,
        "reason": exit.reason,
        "startedAt": rfc3339(exit.started_at),
        "finishedAt": rfc3339(exit.finished_at),
    });
    if let Some(signal) = exit.signal {
        state["signal"] = signal.into();
    }
    if let Some(message) = &exit.message {
        state["message"] = message.as_str().into();
    }
    json!({ "terminated": state })
}

struct Condition {
    kind: &'static str,
    /// `None` is True; else reason and message of False.
    problem: Option<(&'static str, String)>,
}

fn conditions(input: &Input<'_>, phase: &str, before: &Value) -> Value {
    let Input { view, facts, .. } = input;
    let ready = |name: &&String| {
        let container = facts.containers.get(*name);
        !container.is_some_and(|c| c.running.as_ref().is_some_and(|running| running.ready))
    };
    let unready: Vec<&str> = view
        .containers
        .iter()
        .filter(ready)
        .map(String::as_str)
        .collect();
    let pending_init: Vec<&str> = view
        .init
        .iter()
        .filter(|name| {
            let container = facts.containers.get(*name);
            container.is_none_or(|c| c.exit.as_ref().is_none_or(|exit| exit.code != 0))
        })
        .map(String::as_str)
        .collect();
    let started = view
        .containers
        .iter()
        .any(|name| facts.containers.get(name).is_some_and(|c| c.attempt > 0));
    let containers_ready = match phase {
        "Succeeded" => Some(("PodCompleted", String::new())),
        "Failed" => Some(("PodFailed", String::new())),
        _ if unready.is_empty() => None,
        _ => Some((
            "ContainersNotReady",
            format!("containers with unready status: [{}]", unready.join(" ")),
        )),
    };
    let initialized = (!pending_init.is_empty() && !started).then(|| {
        let names = pending_init.join(" ");
        (
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{names}]"),
        )
    });
    let sandbox = matches!(facts.sandbox, Sandbox::Ready { .. });
    let own = [
        Condition {
            kind: "PodReadyToStartContainers",
            problem: (!sandbox).then(|| ("", String::new())),
        },
        Condition {
            kind: "Initialized",
            problem: initialized,
        },
        Condition {
            kind: "Ready",
            problem: containers_ready.clone().or_else(|| unmet_gates(input.pod)),
        },
        Condition {
            kind: "ContainersReady",
            problem: containers_ready,
        },
        Condition {
            kind: "PodScheduled",
            problem: None,
        },
    ];
    let empty = Vec::new();
    let before = before
        .get("conditions")
        .and_then(Value::as_array)
        .unwrap_or(&empty);
    let mut all: Vec<Value> = own.iter().map(|c| render(c, before, input.now)).collect();
    let current = input
        .pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    for foreign in current.into_iter().flatten() {
        if !OWN_CONDITIONS.contains(&foreign.type_.as_str()) {
            all.push(serde_json::to_value(foreign).unwrap_or_default());
        }
    }
    all.into()
}

/// KEP-580: every condition named in `readinessGates` must be True.
fn unmet_gates(pod: &Pod) -> Option<(&'static str, String)> {
    let gates = pod.spec.as_ref()?.readiness_gates.as_ref()?;
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let unmet = gates.iter().find(|gate| {
        !conditions
            .into_iter()
            .flatten()
            .any(|c| c.type_ == gate.condition_type && c.status == "True")
    })?;
    let message = format!(
        "corresponding condition of pod readiness gate {:?} does not exist or is not True.",
        unmet.condition_type
    );
    Some(("ReadinessGatesNotReady", message))
}

/// The time of the last transition is kept while the status stays.
fn render(condition: &Condition, before: &[Value], now: Timestamp) -> Value {
    let status = if condition.problem.is_none() {
        "True"
    } else {
        "False"
    };
    let same = before
        .iter()
        .find(|old| old["type"] == condition.kind && old["status"] == status);
    let time = same
        .and_then(|old| old.get("lastTransitionTime"))
        .filter(|time| !time.is_null())
        .cloned()
        .unwrap_or_else(|| rfc3339(now).into());
    let mut value = json!({
        "type": condition.kind, "status": status, "lastTransitionTime": time, "lastProbeTime": null,
    });
    if let Some((reason, message)) = &condition.problem {
        for (key, text) in [("reason", *reason), ("message", message.as_str())] {
            if !text.is_empty() {
                value[key] = text.into();
            }
        }
    }
    value
}
