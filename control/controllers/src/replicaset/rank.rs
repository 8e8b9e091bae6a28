//! Which Pods to delete first when there are too many.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::owner;
use crate::pods;

/// Annotation by which an application says how much it would miss a Pod (KEP-2255).
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Chooses `count` Pods to delete, in the order of Kubernetes' `ActivePodsWithRanks`: those without a node first,
/// then the earlier phase, then the ones not ready, the cheaper ones, those that share their node with more Pods
/// of the application, those ready for a shorter time, with more restarts, and the younger.
pub(super) fn victims<'a>(
    active: &[&'a Arc<Pod>],
    related: &[Arc<Pod>],
    count: usize,
) -> Vec<&'a Arc<Pod>> {
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for node in related.iter().filter_map(|pod| pods::node_name(pod)) {
        *crowd.entry(node).or_default() += 1;
    }
    let mut pods = active.to_vec();
    pods.sort_by_cached_key(|pod| order(pod, &crowd));
    pods.truncate(count);
    pods
}

type Order = (
    bool,
    u8,
    bool,
    i32,
    Reverse<usize>,
    Reverse<Option<Timestamp>>,
    Reverse<i32>,
    Reverse<Option<Timestamp>>,
    String,
);

fn order(pod: &Pod, crowd: &HashMap<&str, usize>) -> Order {
    let node = pods::node_name(pod);
    let phase = match pods::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = owner::annotation(&pod.metadata, DELETION_COST);
    let statuses = pod
        .status
        .as_ref()
        .and_then(|s| s.container_statuses.as_ref());
    let restarts = statuses
        .into_iter()
        .flatten()
        .map(|c| c.restart_count)
        .max();
    (
        node.is_some(),
        phase,
        pods::is_ready(pod),
        cost.and_then(|cost| cost.parse().ok()).unwrap_or(0),
        Reverse(node.and_then(|node| crowd.get(node)).copied().unwrap_or(0)),
        Reverse(pods::ready_since(pod)),
        Reverse(restarts.unwrap_or(0)),
        Reverse(pod.metadata.creation_timestamp.as_ref().map(|t| t.0)),
        pod.metadata.name.clone().unwrap_or_default(),
    )
}
