//! The Status column: one word for the state of all containers (`printPod` of kubernetes/pkg/printers).

use jiff::Timestamp;
use serde_json::Value;

use super::super::table_parts::{age, none_if_empty};
use super::super::value::{flag, int, list, text};
use crate::{meta, table};

/// What the container statuses add up to.
#[derive(Default)]
struct Summary {
    word: String,
    ready: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

pub(super) fn pod(object: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarise(object);
    let sidecars = list(object, "/spec/initContainers")
        .iter()
        .filter(|c| is_sidecar(c))
        .count();
    let total = list(object, "/spec/containers").len() + sidecars;
    let restarts = match summary.last_restart.filter(|_| summary.restarts > 0) {
        Some(last) => format!("{} ({} ago)", summary.restarts, table::age(Some(last), now)),
        None => summary.restarts.to_string(),
    };
    let ip = list(object, "/status/podIPs")
        .first()
        .map_or_else(|| text(object, "/status/podIP"), |ip| text(ip, "/ip"));
    vec![
        meta::name(object).into(),
        format!("{}/{total}", summary.ready).into(),
        summary.word.into(),
        restarts.into(),
        age(object, now),
        none_if_empty(ip.to_owned()).into(),
        none_if_empty(text(object, "/spec/nodeName").to_owned()).into(),
        none_if_empty(text(object, "/status/nominatedNodeName").to_owned()).into(),
        gates(object).into(),
    ]
}

fn summarise(object: &Value) -> Summary {
    let phase = text(object, "/status/phase");
    let reason = text(object, "/status/reason");
    let mut summary = Summary {
        word: if reason.is_empty() { phase } else { reason }.to_owned(),
        ..Summary::default()
    };
    if condition(object, "PodScheduled").is_some_and(|c| text(c, "/reason") == "SchedulingGated") {
        summary.word = "SchedulingGated".to_owned();
    }
    let initializing = init_containers(object, &mut summary);
    if !initializing || is_true(object, "Initialized") {
        main_containers(object, &mut summary);
    }
    if meta::is_terminating(object) {
        if reason == "NodeLost" {
            summary.word = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.word = "Terminating".to_owned();
        }
    }
    summary
}

/// Walks the init containers up to the first that is not done; says whether there is one.
fn init_containers(object: &Value, summary: &mut Summary) -> bool {
    let specs = list(object, "/spec/initContainers");
    for (i, status) in list(object, "/status/initContainerStatuses")
        .iter()
        .enumerate()
    {
        let sidecar = specs
            .iter()
            .any(|s| text(s, "/name") == text(status, "/name") && is_sidecar(s));
        count_restarts(status, summary);
        let waiting = text(status, "/state/waiting/reason");
        if let Some(ended) = status.pointer("/state/terminated") {
            if int(ended, "/exitCode") == Some(0) {
                continue;
            }
            summary.word = format!("Init:{}", ending(ended));
        } else if sidecar && flag(status, "/started") {
            summary.ready += usize::from(flag(status, "/ready"));
            continue;
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            summary.word = format!("Init:{waiting}");
        } else {
            summary.word = format!("Init:{i}/{}", specs.len());
        }
        return true;
    }
    false
}

fn main_containers(object: &Value, summary: &mut Summary) {
    let specs = list(object, "/spec/initContainers");
    let (mut restarts, mut last) = (0, None);
    // Restarts of plain init containers are history once the pod is up; those of sidecars still count.
    for status in list(object, "/status/initContainerStatuses") {
        if specs
            .iter()
            .any(|s| text(s, "/name") == text(status, "/name") && is_sidecar(s))
        {
            let mut sidecar = Summary::default();
            count_restarts(status, &mut sidecar);
            restarts += sidecar.restarts;
            last = last.max(sidecar.last_restart);
        }
    }
    (summary.restarts, summary.last_restart) = (restarts, last);
    let mut running = false;
    for status in list(object, "/status/containerStatuses").iter().rev() {
        count_restarts(status, summary);
        let waiting = text(status, "/state/waiting/reason");
        if !waiting.is_empty() {
            summary.word = waiting.to_owned();
        } else if let Some(ended) = status.pointer("/state/terminated") {
            summary.word = ending(ended);
        } else if flag(status, "/ready") && status.pointer("/state/running").is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.word == "Completed" && running {
        summary.word = if is_true(object, "Ready") {
            "Running"
        } else {
            "NotReady"
        }
        .to_owned();
    }
}

fn count_restarts(status: &Value, summary: &mut Summary) {
    summary.restarts += int(status, "/restartCount").unwrap_or(0);
    let finished = text(status, "/lastState/terminated/finishedAt")
        .parse()
        .ok();
    summary.last_restart = summary.last_restart.max(finished);
}

fn ending(terminated: &Value) -> String {
    let reason = text(terminated, "/reason");
    let signal = int(terminated, "/signal").unwrap_or(0);
    if !reason.is_empty() {
        reason.to_owned()
    } else if signal != 0 {
        format!("Signal:{signal}")
    } else {
        format!("ExitCode:{}", int(terminated, "/exitCode").unwrap_or(0))
    }
}

fn gates(object: &Value) -> String {
    let gates = list(object, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let passed = gates
        .iter()
        .filter(|gate| is_true(object, text(gate, "/conditionType")))
        .count();
    format!("{passed}/{}", gates.len())
}

fn is_sidecar(container: &Value) -> bool {
    text(container, "/restartPolicy") == "Always"
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(object, "/status/conditions")
        .iter()
        .find(|c| text(c, "/type") == kind)
}

fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|c| text(c, "/status") == "True")
}
