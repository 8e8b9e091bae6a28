//! Changing the size of ReplicaSets.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::json;

use super::view::{self, DESIRED, MAX, View};
use crate::owner;
use crate::plan::{EventDraft, Op, Plan};

/// Gives a ReplicaSet a size and notes for which size of the Deployment. Nothing happens when both are so already.
pub(super) fn set_replicas(view: &View<'_>, set: &ReplicaSet, size: i32, plan: &mut Plan) {
    let from = view::replicas(set);
    let desired = view.replicas().to_string();
    let max = (view.replicas() + view.max_surge()).to_string();
    let noted = owner::annotation(&set.metadata, DESIRED) == Some(&desired)
        && owner::annotation(&set.metadata, MAX) == Some(&max);
    if from == size && noted {
        return;
    }
    let annotations = json!({"metadata": {"annotations": {DESIRED: desired, MAX: max}}});
    let mut body = super::guarded(set.metadata.uid.as_ref(), annotations);
    let op = |body| Op::Patch {
        at: view::reference(set),
        subresource: "",
        body,
    };
    if from == size {
        plan.push(op(body));
        return;
    }
    body["spec"]["replicas"] = json!(size);
    let way = if size > from { "up" } else { "down" };
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let message = format!("Scaled {way} replica set {name} from {from} to {size}");
    let event = EventDraft::normal(view.object, "ScalingReplicaSet", message);
    plan.push_with_event(op(body), event);
}

/// Brings the ReplicaSets to a changed `spec.replicas` without moving the update on.
pub(super) fn sync(view: &View<'_>, plan: &mut Plan) {
    let active: Vec<&Arc<ReplicaSet>> = view
        .sets()
        .iter()
        .filter(|set| view::replicas(set) > 0)
        .collect();
    // With one version at most it simply gets the new size.
    let single = match active.as_slice() {
        [] => view.new_set().or(view.sets().last()),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(set) = single {
        set_replicas(view, set, view.replicas(), plan);
        return;
    }
    if let Some(new) = view.new_set().filter(|set| is_saturated(view, set)) {
        for set in active
            .iter()
            .filter(|set| set.metadata.uid != new.metadata.uid)
        {
            set_replicas(view, set, 0, plan);
        }
        return;
    }
    if view.is_recreate() {
        return;
    }
    for (set, size) in proportional(view, active) {
        set_replicas(view, set, size, plan);
    }
}

/// Whether the new version has all the Pods it should, available.
fn is_saturated(view: &View<'_>, set: &ReplicaSet) -> bool {
    let desired = owner::annotation(&set.metadata, DESIRED).and_then(|v| v.parse::<i32>().ok());
    view::replicas(set) == view.replicas()
        && desired == Some(view.replicas())
        && view::available(set) == view.replicas()
}

/// Shares a change of size among the active versions in proportion to theirs, so that the risk of a rollout under
/// way stays what it was. Larger ones first, among equals the newer when growing and the older when shrinking;
/// what rounding leaves over goes to the first.
fn proportional<'v>(
    view: &View<'_>,
    mut active: Vec<&'v Arc<ReplicaSet>>,
) -> Vec<(&'v Arc<ReplicaSet>, i32)> {
    let allowed = match view.replicas() {
        0 => 0,
        replicas => replicas + view.max_surge(),
    };
    let total: i32 = active.iter().map(|set| view::replicas(set)).sum();
    let to_add = allowed - total;
    let created = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|t| t.0);
    active.sort_by(|a, b| {
        let by_age = match to_add >= 0 {
            true => created(b).cmp(&created(a)),
            false => created(a).cmp(&created(b)),
        };
        view::replicas(b).cmp(&view::replicas(a)).then(by_age)
    });
    let mut added = 0;
    let mut sizes = Vec::new();
    for set in active {
        let change = fraction(view, set, to_add - added);
        added += change;
        sizes.push((set, view::replicas(set) + change));
    }
    if let Some((_, size)) = sizes.first_mut() {
        *size = (*size + to_add - added).max(0);
    }
    sizes
}

fn fraction(view: &View<'_>, set: &ReplicaSet, left: i32) -> i32 {
    let size = view::replicas(set);
    let max = owner::annotation(&set.metadata, MAX).and_then(|v| v.parse::<i32>().ok());
    let max = i64::from(max.unwrap_or(view.replicas()).max(1));
    let target = i64::from(view.replicas() + view.max_surge());
    let rounded = (i64::from(size) * target * 2 + max) / (max * 2);
    let rounded = i32::try_from(rounded).unwrap_or(i32::MAX);
    let change = if view.replicas() == 0 {
        -size
    } else {
        rounded - size
    };
    if left >= 0 {
        change.clamp(0, left)
    } else {
        change.clamp(left, 0)
    }
}
