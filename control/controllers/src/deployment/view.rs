//! A Deployment with its ReplicaSets, as one plan sees them.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::object::{Key, Kind, ObjRef, Object};
use crate::owner;

/// Label that keeps the Pods of different versions apart.
pub(super) const HASH_LABEL: &str = "pod-template-hash";
/// `spec.replicas` of the Deployment when the ReplicaSet was last scaled.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// Replicas plus surge at that time.
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";

pub(super) struct View<'a> {
    pub deployment: &'a Deployment,
    pub object: &'a Object,
    pub spec: &'a DeploymentSpec,
    /// Oldest first.
    sets: Vec<Arc<ReplicaSet>>,
    new: Option<usize>,
}

impl<'a> View<'a> {
    pub(super) fn new(
        deployment: &'a Deployment,
        object: &'a Object,
        spec: &'a DeploymentSpec,
        mut sets: Vec<Arc<ReplicaSet>>,
    ) -> Self {
        sets.sort_by_key(|set| {
            let created = set.metadata.creation_timestamp.as_ref().map(|t| t.0);
            (created, set.metadata.name.clone())
        });
        let wanted = without_hash(&spec.template);
        // If there are several, the oldest: then restarting a controller never changes the choice.
        let new = sets.iter().position(|set| {
            let template = set.spec.as_ref().and_then(|s| s.template.as_ref());
            template.is_some_and(|template| without_hash(template) == wanted)
        });
        Self {
            deployment,
            object,
            spec,
            sets,
            new,
        }
    }

    /// All ReplicaSets, oldest first.
    pub(super) fn sets(&self) -> &[Arc<ReplicaSet>] {
        &self.sets
    }

    /// The ReplicaSet of the present template.
    pub(super) fn new_set(&self) -> Option<&Arc<ReplicaSet>> {
        self.sets.get(self.new?)
    }

    /// All others, oldest first.
    pub(super) fn old_sets(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        let others = self.sets.iter().enumerate();
        others
            .filter(|(i, _)| Some(*i) != self.new)
            .map(|(_, set)| set)
    }

    pub(super) fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    /// Replicas asked for over all versions.
    pub(super) fn total(&self) -> i32 {
        self.sets.iter().map(|set| replicas(set)).sum()
    }

    pub(super) fn available(&self) -> i32 {
        self.sets.iter().map(|set| available(set)).sum()
    }

    pub(super) fn is_paused(&self) -> bool {
        self.spec.paused == Some(true)
    }

    pub(super) fn is_recreate(&self) -> bool {
        let strategy = self.spec.strategy.as_ref();
        strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
    }

    /// Whether `spec.replicas` changed since the ReplicaSets were last scaled.
    pub(super) fn is_scaling(&self) -> bool {
        self.sets.iter().filter(|set| replicas(set) > 0).any(|set| {
            let known = owner::annotation(&set.metadata, DESIRED).and_then(|v| v.parse().ok());
            known.is_some_and(|known: i32| known != self.replicas())
        })
    }

    /// How many Pods more than asked for may exist during an update.
    pub(super) fn max_surge(&self) -> i32 {
        self.limits().0
    }

    /// How many Pods fewer than asked for may be available during an update.
    pub(super) fn max_unavailable(&self) -> i32 {
        self.limits().1.min(self.replicas())
    }

    fn limits(&self) -> (i32, i32) {
        if self.is_recreate() {
            return (0, 0);
        }
        let rolling = self
            .spec
            .strategy
            .as_ref()
            .and_then(|s| s.rolling_update.as_ref());
        let surge = rolling.and_then(|r| r.max_surge.as_ref());
        let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref());
        let surge = share(surge, self.replicas(), true);
        let unavailable = share(unavailable, self.replicas(), false);
        // With neither, an update could never move.
        if surge == 0 && unavailable == 0 {
            (0, 1)
        } else {
            (surge, unavailable)
        }
    }

    /// Whether every Pod is of the present version and available, as the status last written says.
    pub(super) fn is_complete(&self) -> bool {
        let Some(status) = &self.deployment.status else {
            return false;
        };
        let wanted = self.replicas();
        status.updated_replicas.unwrap_or(0) == wanted
            && status.replicas.unwrap_or(0) == wanted
            && status.available_replicas.unwrap_or(0) == wanted
            && status.observed_generation >= self.deployment.metadata.generation
    }

    pub(super) fn reference(&self) -> ObjRef {
        self.object.reference()
    }
}

/// A number, or a percentage of `total`; the default of both limits is 25 %.
fn share(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(n)) => return (*n).max(0),
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse().unwrap_or(0),
        None => 25_i64,
    };
    let scaled = i64::from(total.max(0)) * percent.max(0);
    let scaled = if round_up {
        (scaled + 99) / 100
    } else {
        scaled / 100
    };
    i32::try_from(scaled).unwrap_or(i32::MAX)
}

/// A template's JSON without the label that we add: templates are equal when that is.
pub(super) fn without_hash(template: &PodTemplateSpec) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    // Always representable; equal garbage would be equal.
    serde_json::to_value(template).unwrap_or_default()
}

pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|s| s.available_replicas)
        .unwrap_or(0)
}

/// Whether a ReplicaSet has no Pods, asks for none, and knows it.
pub(super) fn is_idle(set: &ReplicaSet) -> bool {
    let status = set.status.as_ref();
    replicas(set) == 0
        && status.is_none_or(|s| s.replicas == 0)
        && status.and_then(|s| s.observed_generation) >= set.metadata.generation
        && set.metadata.deletion_timestamp.is_none()
}

pub(super) fn reference(set: &ReplicaSet) -> ObjRef {
    ObjRef {
        kind: Kind::ReplicaSet,
        key: Key::of(&set.metadata),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_round_as_kubernetes_does() {
        let percent = |p: &str| IntOrString::String(p.to_owned());
        assert_eq!(share(Some(&percent("25%")), 10, true), 3);
        assert_eq!(share(Some(&percent("25%")), 10, false), 2);
        assert_eq!(share(None, 3, true), 1);
        assert_eq!(share(None, 3, false), 0);
        assert_eq!(share(Some(&IntOrString::Int(7)), 3, true), 7);
    }
}
