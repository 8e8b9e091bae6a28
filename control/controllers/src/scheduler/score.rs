//! Which of the fitting nodes is best.

use k8s_openapi::api::core::v1::{Node, Pod};

use super::filter::DEFAULT_PODS;
use super::resources::{self, Load};
use crate::names;
use crate::owner;
use crate::pods;
use crate::state::State;

/// A node's score for a Pod; the smallest wins.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score {
    /// Pods of the same controller on the node: replicas spread before all else.
    siblings: usize,
    /// `PreferNoSchedule` taints that the Pod does not tolerate.
    unwelcome: usize,
    /// Thousandths of the fullest resource.
    load: i128,
    /// Different for each Pod, so that equal nodes take turns; the same at each attempt.
    lot: String,
}

/// Scores one node.
pub(super) fn score(pod: &Pod, node: &Node, load: &Load, state: &State) -> Score {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let siblings = owner::controller_of(&pod.metadata).map_or(0, |owner| {
        let siblings = state.owned::<Pod>(&owner.uid);
        siblings
            .filter(|other| pods::node_name(other) == Some(name))
            .filter(|other| !pods::is_finished(other) && !pods::is_terminating(other))
            .count()
    });
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref());
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
    let unwelcome = taints
        .into_iter()
        .flatten()
        .filter(|taint| taint.effect == "PreferNoSchedule")
        .filter(|taint| !super::filter::tolerated(taint, tolerations.unwrap_or_default()))
        .count();
    Score {
        siblings,
        unwelcome,
        load: fullest(pod, node, load),
        lot: names::hash(&(pod.metadata.uid.as_deref(), name), 0),
    }
}

/// How full the node would be in its scarcest resource.
fn fullest(pod: &Pod, node: &Node, load: &Load) -> i128 {
    let slots = resources::allocatable(node, "pods").map_or(DEFAULT_PODS, |n| n / 1000);
    let mut fullest = (load.pods + 1) * 1000 / slots.max(1);
    let wanted = resources::requests(pod);
    for resource in ["cpu", "memory"] {
        let used = load.requested.get(resource).copied().unwrap_or(0);
        let asked = wanted.get(resource).copied().unwrap_or(0);
        if let Some(offered) = resources::allocatable(node, resource).filter(|n| *n > 0) {
            fullest = fullest.max((used + asked) * 1000 / offered);
        }
    }
    fullest
}
