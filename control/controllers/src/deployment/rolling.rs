//! The rolling update: never more than replicas + maxSurge Pods, never fewer than replicas - maxUnavailable
//! available ones.

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::scale::set_replicas;
use super::view::{self, View};
use crate::plan::Plan;

/// One step: the new version up as far as it may go, else the old ones down as far as they may.
pub(super) fn step(view: &View<'_>, new: &ReplicaSet, plan: &mut Plan) {
    set_replicas(view, new, size_of_new(view, new), plan);
    if plan.steps.is_empty() {
        shrink_old(view, new, plan);
    }
}

fn size_of_new(view: &View<'_>, new: &ReplicaSet) -> i32 {
    let size = view::replicas(new);
    let wanted = view.replicas();
    if size >= wanted {
        return wanted;
    }
    let room = wanted + view.max_surge() - view.total();
    size + room.clamp(0, wanted - size)
}

fn shrink_old(view: &View<'_>, new: &ReplicaSet, plan: &mut Plan) {
    let min_available = view.replicas() - view.max_unavailable();
    let new_unavailable = view::replicas(new) - view::available(new);
    // What may go at most: Pods of the new version that are not up yet count as missing.
    let may_go = view.total() - min_available - new_unavailable;
    if may_go <= 0 {
        return;
    }
    let mut sizes: Vec<(&ReplicaSet, i32)> = view
        .old_sets()
        .map(|set| (&**set, view::replicas(set)))
        .collect();
    // Pods that serve nobody first.
    let mut unhealthy_left = may_go;
    for (set, size) in &mut sizes {
        let unhealthy = (*size - view::available(set)).clamp(0, unhealthy_left);
        *size -= unhealthy;
        unhealthy_left -= unhealthy;
    }
    let mut available_left = (view.available() - min_available).clamp(0, unhealthy_left);
    for (_, size) in &mut sizes {
        let healthy = (*size).min(available_left);
        *size -= healthy;
        available_left -= healthy;
    }
    for (set, size) in sizes {
        if size != view::replicas(set) {
            set_replicas(view, set, size, plan);
        }
    }
}
