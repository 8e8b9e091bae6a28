//! The status of a ReplicaSet.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::Failure;
use crate::plan::{Clock, Plan};
use crate::pods;
use crate::selector;

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The status to write, if it differs from the known one. Asks for another plan when a ready Pod becomes available
/// by the mere passing of time.
pub(super) fn plan(
    set: &ReplicaSet,
    active: &[&Arc<Pod>],
    failure: Option<&Failure>,
    clock: Clock,
    plan: &mut Plan,
) -> Option<Value> {
    let spec = set.spec.as_ref();
    let template = spec.and_then(|spec| spec.template.as_ref()?.metadata.as_ref());
    let template_labels = template.map(selector::labels);
    let min_ready = spec.and_then(|s| s.min_ready_seconds).unwrap_or(0);
    let (mut ready, mut available, mut labeled) = (0, 0, 0);
    for pod in active {
        let labels = selector::labels(&pod.metadata);
        if template_labels.is_none_or(|wanted| selector::equals(wanted, labels)) {
            labeled += 1;
        }
        if let Some(left) = pods::available_in(pod, min_ready, clock.wall) {
            ready += 1;
            if left.is_zero() {
                available += 1;
            } else {
                plan.retry_in(left);
            }
        }
    }
    let known = set.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(labeled),
        ready_replicas: Some(ready),
        available_replicas: Some(available),
        observed_generation: set.metadata.generation,
        conditions: conditions(&known, failure, clock),
        terminating_replicas: known.terminating_replicas,
    };
    let same = |a: Option<i32>, b: Option<i32>| a.unwrap_or(0) == b.unwrap_or(0);
    let unchanged = status.replicas == known.replicas
        && same(status.fully_labeled_replicas, known.fully_labeled_replicas)
        && same(status.ready_replicas, known.ready_replicas)
        && same(status.available_replicas, known.available_replicas)
        && status.observed_generation == known.observed_generation
        && status.conditions.as_deref().unwrap_or_default()
            == known.conditions.as_deref().unwrap_or_default();
    (!unchanged).then(|| {
        json!({
            "replicas": status.replicas,
            "fullyLabeledReplicas": labeled,
            "readyReplicas": ready,
            "availableReplicas": available,
            "observedGeneration": status.observed_generation,
            "conditions": status.conditions,
        })
    })
}

fn conditions(
    known: &ReplicaSetStatus,
    failure: Option<&Failure>,
    clock: Clock,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = known.conditions.clone().unwrap_or_default();
    let before = conditions.iter().position(|c| c.type_ == REPLICA_FAILURE);
    let before = before.map(|at| conditions.remove(at));
    if let Some(failure) = failure {
        let same = before.filter(|c| {
            c.reason.as_deref() == Some(failure.reason)
                && c.message.as_deref() == Some(&*failure.message)
        });
        conditions.push(same.unwrap_or_else(|| ReplicaSetCondition {
            type_: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(clock.wall)),
        }));
    }
    (!conditions.is_empty()).then_some(conditions)
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
