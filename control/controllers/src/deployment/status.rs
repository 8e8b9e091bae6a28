//! The status of a Deployment: counts, and the conditions `Available`, `Progressing`, `ReplicaFailure`.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::view::{self, View};
use crate::plan::{Clock, Plan};

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
/// Reasons of `Progressing` that decide what comes next.
const DONE: &str = "NewReplicaSetAvailable";
const PAUSED: &str = "DeploymentPaused";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// Writes the status if it differs from the known one. `created` names a ReplicaSet that this plan creates.
pub(super) fn sync(view: &View<'_>, created: Option<&str>, clock: Clock, plan: &mut Plan) {
    let known = view.deployment.status.clone().unwrap_or_default();
    let mut status = counts(view, &known);
    let mut conditions = known.conditions.clone().unwrap_or_default();
    let now = Time(clock.wall);
    set(&mut conditions, available(view, &status), &now);
    conditions.retain(|c| c.type_ != REPLICA_FAILURE);
    if let Some(failure) = replica_failure(view, &known) {
        conditions.push(failure);
    }
    match deadline(view) {
        None => conditions.retain(|c| c.type_ != PROGRESSING),
        Some(deadline) => {
            let before = known
                .conditions
                .iter()
                .flatten()
                .find(|c| c.type_ == PROGRESSING);
            let next = progress(view, &known, &status, before, created, deadline, clock);
            if let Some((next, renewed)) = next {
                set(&mut conditions, next, &now);
                if renewed && let Some(c) = conditions.iter_mut().find(|c| c.type_ == PROGRESSING) {
                    c.last_update_time = Some(now);
                }
            }
            let after = conditions.iter().find(|c| c.type_ == PROGRESSING);
            if let Some(left) = after.and_then(|c| until_deadline(c, deadline, clock)) {
                plan.retry_in(left);
            }
        }
    }
    status.conditions = Some(conditions);
    if normal(&status) != normal(&known) {
        let body = json!({"status": {
            "replicas": status.replicas,
            "updatedReplicas": status.updated_replicas,
            "readyReplicas": status.ready_replicas,
            "availableReplicas": status.available_replicas,
            "unavailableReplicas": status.unavailable_replicas,
            "observedGeneration": status.observed_generation,
            "conditions": status.conditions,
        }});
        let uid = view.deployment.metadata.uid.as_ref();
        plan.patch(view.reference(), "status", super::guarded(uid, body));
    }
}

/// A status with absent counts as zeros, for comparing.
fn normal(status: &DeploymentStatus) -> DeploymentStatus {
    let zero = |n: Option<i32>| Some(n.unwrap_or(0));
    DeploymentStatus {
        replicas: zero(status.replicas),
        updated_replicas: zero(status.updated_replicas),
        ready_replicas: zero(status.ready_replicas),
        available_replicas: zero(status.available_replicas),
        unavailable_replicas: zero(status.unavailable_replicas),
        conditions: Some(status.conditions.clone().unwrap_or_default()),
        ..status.clone()
    }
}

fn counts(view: &View<'_>, known: &DeploymentStatus) -> DeploymentStatus {
    let sum = |count: fn(&ReplicaSetStatus) -> i32| -> i32 {
        let statuses = view.sets().iter().filter_map(|set| set.status.as_ref());
        statuses.map(count).sum()
    };
    let new = view.new_set().and_then(|set| set.status.as_ref());
    let available = view.available();
    DeploymentStatus {
        observed_generation: view.deployment.metadata.generation,
        replicas: Some(sum(|s| s.replicas)),
        updated_replicas: Some(new.map_or(0, |s| s.replicas)),
        ready_replicas: Some(sum(|s| s.ready_replicas.unwrap_or(0))),
        available_replicas: Some(available),
        unavailable_replicas: Some((view.total() - available).max(0)),
        collision_count: known.collision_count,
        conditions: None,
        terminating_replicas: known.terminating_replicas,
    }
}

fn condition(type_: &str, status: &str, reason: &str, message: String) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: None,
        last_update_time: None,
    }
}

/// Puts a condition in its place. Its times move only when it says something new.
fn set(conditions: &mut Vec<DeploymentCondition>, mut new: DeploymentCondition, now: &Time) {
    let Some(place) = conditions.iter_mut().find(|c| c.type_ == new.type_) else {
        new.last_transition_time = Some(now.clone());
        new.last_update_time = Some(now.clone());
        conditions.push(new);
        return;
    };
    if place.status == new.status && place.reason == new.reason && place.message == new.message {
        return;
    }
    new.last_update_time = Some(now.clone());
    new.last_transition_time = match place.status == new.status {
        true => place.last_transition_time.clone(),
        false => Some(now.clone()),
    };
    *place = new;
}

fn available(view: &View<'_>, status: &DeploymentStatus) -> DeploymentCondition {
    let wanted = view.replicas() - view.max_unavailable();
    if status.available_replicas.unwrap_or(0) >= wanted {
        let message = "Deployment has minimum availability.".to_owned();
        condition(AVAILABLE, "True", "MinimumReplicasAvailable", message)
    } else {
        let message = "Deployment does not have minimum availability.".to_owned();
        condition(AVAILABLE, "False", "MinimumReplicasUnavailable", message)
    }
}

/// The failure of the present ReplicaSet, else of an old one, shown on the Deployment.
fn replica_failure(view: &View<'_>, known: &DeploymentStatus) -> Option<DeploymentCondition> {
    let sets = view.new_set().into_iter().chain(view.old_sets());
    let failure = sets
        .filter_map(|set| set.status.as_ref()?.conditions.as_ref())
        .flatten()
        .find(|c| c.type_ == REPLICA_FAILURE)?;
    let before = known
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == REPLICA_FAILURE);
    if let Some(before) = before.filter(|c| c.message == failure.message) {
        return Some(before.clone());
    }
    Some(DeploymentCondition {
        type_: REPLICA_FAILURE.to_owned(),
        status: failure.status.clone(),
        reason: failure.reason.clone(),
        message: failure.message.clone(),
        last_transition_time: failure.last_transition_time.clone(),
        last_update_time: failure.last_transition_time.clone(),
    })
}

/// `progressDeadlineSeconds`; the largest number means none.
fn deadline(view: &View<'_>) -> Option<Duration> {
    let seconds = view.spec.progress_deadline_seconds.unwrap_or(600);
    (seconds != i32::MAX).then(|| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// The next `Progressing` condition, and whether its clock starts anew. `None`: as it is.
fn progress(
    view: &View<'_>,
    known: &DeploymentStatus,
    status: &DeploymentStatus,
    before: Option<&DeploymentCondition>,
    created: Option<&str>,
    deadline: Duration,
    clock: Clock,
) -> Option<(DeploymentCondition, bool)> {
    let reason = before.and_then(|c| c.reason.as_deref()).unwrap_or_default();
    if view.is_paused() {
        let paused = condition(
            PROGRESSING,
            "Unknown",
            PAUSED,
            "Deployment is paused".to_owned(),
        );
        return (reason != TIMED_OUT && reason != PAUSED).then_some((paused, false));
    }
    if reason == PAUSED {
        let message = "Deployment is resumed".to_owned();
        return Some((
            condition(PROGRESSING, "Unknown", "DeploymentResumed", message),
            true,
        ));
    }
    if let Some(name) = created {
        let message = format!("Created new replica set \"{name}\"");
        return Some((
            condition(PROGRESSING, "True", "NewReplicaSetCreated", message),
            true,
        ));
    }
    let name = view.new_set()?.metadata.name.as_deref().unwrap_or_default();
    // A finished rollout stays finished while Pods come and go: that is for `Available` to tell.
    if status.replicas == status.updated_replicas && reason == DONE && !is_done(view, status) {
        return None;
    }
    if is_done(view, status) {
        let message = format!("ReplicaSet \"{name}\" has successfully progressed.");
        return Some((condition(PROGRESSING, "True", DONE, message), false));
    }
    if has_moved(known, status) || before.is_none() || reason == DONE {
        let message = format!("ReplicaSet \"{name}\" is progressing.");
        return Some((
            condition(PROGRESSING, "True", "ReplicaSetUpdated", message),
            true,
        ));
    }
    let overdue = before
        .and_then(|c| until_deadline(c, deadline, clock))
        .is_some_and(|d| d.is_zero());
    let message = format!("ReplicaSet \"{name}\" has timed out progressing.");
    overdue.then(|| (condition(PROGRESSING, "False", TIMED_OUT, message), false))
}

fn is_done(view: &View<'_>, status: &DeploymentStatus) -> bool {
    let wanted = Some(view.replicas());
    let settled = view
        .new_set()
        .is_some_and(|set| view::replicas(set) == view.replicas());
    settled
        && status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
}

fn has_moved(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |count: Option<i32>| count.unwrap_or(0);
    let outdated = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || outdated(new) < outdated(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

/// Time left until a rollout under way counts as stuck; `None` when it is not under way.
fn until_deadline(c: &DeploymentCondition, deadline: Duration, clock: Clock) -> Option<Duration> {
    let reason = c.reason.as_deref().unwrap_or_default();
    if matches!(reason, DONE | TIMED_OUT | PAUSED) {
        return None;
    }
    let since = clock.wall.duration_since(c.last_update_time.as_ref()?.0);
    let since = Duration::try_from(since).unwrap_or_default();
    Some(deadline.saturating_sub(since))
}
