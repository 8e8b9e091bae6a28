//! The ReplicaSet of the present template: created, numbered, kept up to date.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use super::view::{self, DESIRED, HASH_LABEL, MAX, View};
use crate::names;
use crate::object::{Kind, ObjRef};
use crate::owner;
use crate::plan::{EventDraft, Op, Plan};
use crate::state::State;

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotations of the Deployment that do not belong on its ReplicaSets.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// The revision number of an object; 0 if it has none.
pub(super) fn of(meta: &ObjectMeta) -> i64 {
    owner::annotation(meta, REVISION)
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

fn next(view: &View<'_>) -> i64 {
    view.old_sets()
        .map(|set| of(&set.metadata))
        .max()
        .unwrap_or(0)
        + 1
}

/// Creates the ReplicaSet of the present template, as large as the strategy allows at once, and returns its name.
/// If another object has that name, the hash gets another salt and the next plan another name.
pub(super) fn create(view: &View<'_>, state: &State, plan: &mut Plan) -> Option<String> {
    let meta = &view.deployment.metadata;
    let collisions = view
        .deployment
        .status
        .as_ref()
        .and_then(|s| s.collision_count);
    let template = view::without_hash(&view.spec.template);
    let hash = names::hash(&template, collisions.unwrap_or(0));
    let name = format!("{}-{hash}", meta.name.as_deref().unwrap_or_default());
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let mut template = template;
    template["metadata"]["labels"][HASH_LABEL] = json!(hash);
    let mut selector = json!(view.spec.selector);
    selector["matchLabels"][HASH_LABEL] = json!(hash);
    let room = view.replicas() + view.max_surge() - view.total();
    let size = room.clamp(0, view.replicas());
    let revision = next(view).to_string();
    let mut annotations = copied_annotations(view);
    annotations.insert(REVISION.to_owned(), json!(revision));
    annotations.insert(DESIRED.to_owned(), json!(view.replicas().to_string()));
    let max = view.replicas() + view.max_surge();
    annotations.insert(MAX.to_owned(), json!(max.to_string()));
    let body = json!({
        "metadata": {
            "labels": template["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [owner::controlled_by(view.object)],
        },
        "spec": {
            "replicas": size,
            "minReadySeconds": view.spec.min_ready_seconds.unwrap_or(0),
            "selector": selector,
            "template": template,
        },
    });
    let at = ObjRef::new(Kind::ReplicaSet, namespace, &name);
    if state.object(&at).is_some() {
        let salt = json!({"status": {"collisionCount": collisions.unwrap_or(0) + 1}});
        plan.patch(
            view.reference(),
            "status",
            super::guarded(meta.uid.as_ref(), salt),
        );
        return None;
    }
    let create = Op::Create { at, body };
    if size > 0 {
        let message = format!("Scaled up replica set {name} from 0 to {size}");
        let event = EventDraft::normal(view.object, "ScalingReplicaSet", message);
        plan.push_with_event(create, event);
    } else {
        plan.push(create);
    }
    number(view, &revision, plan);
    Some(name)
}

/// Keeps number, annotations and `minReadySeconds` of the present ReplicaSet right; true if that took a write.
pub(super) fn refresh(view: &View<'_>, set: &ReplicaSet, plan: &mut Plan) -> bool {
    let before = plan.steps.len();
    let newest = view
        .old_sets()
        .map(|set| of(&set.metadata))
        .max()
        .unwrap_or(0);
    let mut revision = of(&set.metadata);
    let mut annotations = copied_annotations(view);
    annotations.retain(|k, v| owner::annotation(&set.metadata, k) != v.as_str());
    if revision <= newest {
        // A rollback: an old version is the present one again, under a new number.
        if revision > 0 {
            let history = owner::annotation(&set.metadata, HISTORY).unwrap_or_default();
            let history = [history, &revision.to_string()];
            let history: Vec<&str> = history.into_iter().filter(|h| !h.is_empty()).collect();
            annotations.insert(HISTORY.to_owned(), json!(history.join(",")));
        }
        revision = newest + 1;
        annotations.insert(REVISION.to_owned(), json!(revision.to_string()));
    }
    let mut body = json!({});
    if !annotations.is_empty() {
        body["metadata"]["annotations"] = Value::Object(annotations);
    }
    let wanted = view.spec.min_ready_seconds.unwrap_or(0);
    if set
        .spec
        .as_ref()
        .and_then(|s| s.min_ready_seconds)
        .unwrap_or(0)
        != wanted
    {
        body["spec"]["minReadySeconds"] = json!(wanted);
    }
    if body != json!({}) {
        let body = super::guarded(set.metadata.uid.as_ref(), body);
        plan.patch(view::reference(set), "", body);
    }
    number(view, &revision.to_string(), plan);
    plan.steps.len() > before
}

/// Writes the number of the present revision on the Deployment.
fn number(view: &View<'_>, revision: &str, plan: &mut Plan) {
    let meta = &view.deployment.metadata;
    if owner::annotation(meta, REVISION) != Some(revision) {
        let body = json!({"metadata": {"annotations": {REVISION: revision}}});
        plan.patch(
            view.reference(),
            "",
            super::guarded(meta.uid.as_ref(), body),
        );
    }
}

fn copied_annotations(view: &View<'_>) -> Map<String, Value> {
    let annotations = view.deployment.metadata.annotations.iter().flatten();
    annotations
        .filter(|(name, _)| !NOT_COPIED.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect()
}
