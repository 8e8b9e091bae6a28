use jiff::Timestamp;
use serde_json::Value;

use super::super::table_parts::{AGE, NAME, age, containers, number, selector, wide};
use super::super::validation::{metadata, names::NameRule, non_negative};
use super::super::value::{child, default, int};
use super::super::verbs::{GET_PATCH_UPDATE, STANDARD};
use super::super::{FieldError, Hooks, Kind, SelectableField, Subresource, pod, prepare};
use super::{SCALE, selector_and_template, selector_unchanged};
use crate::meta;

pub(in super::super) static REPLICA_SET: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    namespaced: true,
    verbs: STANDARD,
    subresources: &[
        SCALE,
        Subresource {
            name: "status",
            verbs: GET_PATCH_UPDATE,
            body: None,
        },
    ],
    columns: &[
        NAME,
        number("Desired", "Pods wanted"),
        number("Current", "Pods there"),
        number("Ready", "Pods ready"),
        AGE,
        wide("Containers", "Names of the containers"),
        wide("Images", "Images of the containers"),
        wide("Selector", "Labels of the pods"),
    ],
    selectable: &[SelectableField {
        name: "status.replicas",
        get: |o| int(o, "/status/replicas").unwrap_or(0).to_string(),
    }],
    view_of: None,
    hooks: Hooks {
        default: fill,
        prepare_create: |object| {
            prepare::counted_create(object);
            object["status"] = serde_json::json!({ "replicas": 0 });
        },
        prepare_update: prepare::counted_update,
        validate,
        row,
    },
};

fn fill(object: &mut Value) {
    let spec = child(object, "spec");
    default(spec, "replicas", 1);
    pod::default_template(child(spec, "template"));
}

fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata(object, old, NameRule::Subdomain, &mut errors);
    for key in ["replicas", "minReadySeconds"] {
        non_negative(object["spec"].get(key), &format!("spec.{key}"), &mut errors);
    }
    selector_and_template(object, "replicaset", &mut errors);
    selector_unchanged(object, old, &mut errors);
    errors
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = |pointer: &str| int(object, pointer).unwrap_or(0);
    let (names, images) = containers(object, "/spec/template/spec/containers");
    vec![
        meta::name(object).into(),
        count("/spec/replicas").into(),
        count("/status/replicas").into(),
        count("/status/readyReplicas").into(),
        age(object, now),
        names.into(),
        images.into(),
        selector(object, "/spec/selector").into(),
    ]
}
