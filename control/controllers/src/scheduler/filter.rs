//! Which nodes can take a Pod, and in Kubernetes' words why the others cannot.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, Taint, Toleration};

use super::resources::{self, Load};
use crate::pods;
use crate::selector;

/// Pods that a node takes if it does not say (the default of a kubelet).
pub(super) const DEFAULT_PODS: i128 = 110;
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Why a node cannot take a Pod; empty if it can.
pub(super) fn reasons<'a>(
    pod: &Pod,
    node: &Node,
    load: &Load,
    on_node: impl Iterator<Item = &'a Pod>,
) -> Vec<String> {
    let Some(spec) = &pod.spec else {
        return vec!["node(s) didn't match a Pod without a spec".to_owned()];
    };
    if node.metadata.deletion_timestamp.is_some() {
        return vec!["node(s) were being deleted".to_owned()];
    }
    // In the order of Kubernetes' filters, of which the first failure counts.
    let node_spec = node.spec.clone().unwrap_or_default();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let cordon = Taint {
        key: UNSCHEDULABLE.to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    if node_spec.unschedulable == Some(true) && !tolerated(&cordon, tolerations) {
        return vec!["node(s) were unschedulable".to_owned()];
    }
    let taints = node_spec.taints.unwrap_or_default();
    let taint = taints
        .iter()
        .filter(|taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute")
        .find(|taint| !tolerated(taint, tolerations));
    if let Some(taint) = taint {
        let value = taint.value.as_deref().unwrap_or_default();
        return vec![format!(
            "node(s) had untolerated taint {{{}: {value}}}",
            taint.key
        )];
    }
    if !is_ready(node) {
        return vec!["node(s) were not ready".to_owned()];
    }
    if !selects(spec, node) {
        return vec!["node(s) didn't match Pod's node affinity/selector".to_owned()];
    }
    let wanted = host_ports(spec);
    if !wanted.is_empty() {
        let taken = on_node
            .filter(|pod| !pods::is_finished(pod))
            .filter_map(|p| p.spec.as_ref());
        let mut taken = taken.flat_map(host_ports);
        if taken.any(|port| wanted.iter().any(|want| clash(want, &port))) {
            return vec!["node(s) didn't have free ports for the requested pod ports".to_owned()];
        }
    }
    fits(pod, node, load)
}

fn fits(pod: &Pod, node: &Node, load: &Load) -> Vec<String> {
    let mut reasons = Vec::new();
    let pods = resources::allocatable(node, "pods").map_or(DEFAULT_PODS, |n| n / 1000);
    if load.pods + 1 > pods {
        reasons.push("Too many pods".to_owned());
    }
    for (resource, amount) in resources::requests(pod) {
        let used = load.requested.get(&resource).copied().unwrap_or(0);
        // A node that does not say how much it has limits only what it would have to say it has.
        let unlimited = matches!(&*resource, "cpu" | "memory" | "ephemeral-storage");
        match resources::allocatable(node, &resource) {
            None if unlimited => {}
            Some(offered) if used + amount <= offered => {}
            _ if amount > 0 => reasons.push(format!("Insufficient {resource}")),
            _ => {}
        }
    }
    reasons
}

/// The sentence of `FailedScheduling`: `0/3 nodes are available: 2 Too many pods, 1 node(s) ...`.
pub(super) fn summary(nodes: usize, reasons: Vec<String>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    let mut parts: Vec<String> = counts
        .into_iter()
        .map(|(reason, n)| format!("{n} {reason}"))
        .collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}

/// Whether a node reports itself ready.
pub(super) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether one of the tolerations covers a taint.
pub(crate) fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations
        .iter()
        .any(|toleration| tolerates(toleration, taint))
}

/// Whether a toleration covers a taint: an empty effect or key covers all of them.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        _ => {
            !key.is_empty()
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
    }
}

fn selects(spec: &PodSpec, node: &Node) -> bool {
    let labels = selector::labels(&node.metadata);
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    let pairs = spec.node_selector.as_ref();
    pairs.is_none_or(|pairs| selector::equals(pairs, labels))
        && required.is_none_or(|required| {
            let mut terms = required.node_selector_terms.iter();
            terms.any(|term| selector::node_term(term, name, labels))
        })
}

type HostPort = (String, String, i32);

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let ports = spec
        .containers
        .iter()
        .flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|n| *n > 0)?;
            let ip = port.host_ip.clone().filter(|ip| !ip.is_empty());
            let protocol = port.protocol.clone();
            Some((
                ip.unwrap_or_else(|| "0.0.0.0".to_owned()),
                protocol.unwrap_or_else(|| "TCP".to_owned()),
                number,
            ))
        })
        .collect()
}

fn clash(a: &HostPort, b: &HostPort) -> bool {
    let any = |ip: &str| matches!(ip, "0.0.0.0" | "::");
    a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || any(&a.0) || any(&b.0))
}
