//! `v1 Namespace`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::table_parts::{AGE, NAME, age, column};
use super::validation::{metadata, names::NameRule};
use super::value::{carry, child, text};
use super::verbs::{GET_PATCH_UPDATE, SINGLE_DELETE};
use super::{FieldError, Hooks, Kind, SelectableField, Subresource, prepare};
use crate::meta;

/// Every namespace carries its own name as a label, so that selectors can name it; nobody can change that.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) static NAMESPACE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    categories: &[],
    namespaced: false,
    verbs: SINGLE_DELETE,
    subresources: &[
        Subresource {
            name: "finalize",
            verbs: &["update"],
            body: None,
        },
        Subresource {
            name: "status",
            verbs: GET_PATCH_UPDATE,
            body: None,
        },
    ],
    columns: &[NAME, column("Status", "The status of the namespace"), AGE],
    selectable: &[SelectableField {
        name: "status.phase",
        get: |o| text(o, "/status/phase").to_owned(),
    }],
    view_of: None,
    hooks: Hooks {
        default: fill,
        prepare_create,
        prepare_update,
        validate,
        row,
    },
};

fn fill(object: &mut Value) {
    let name = meta::name(object).to_owned();
    if !name.is_empty() {
        child(child(object, "metadata"), "labels")[NAME_LABEL] = name.into();
    }
}

fn prepare_create(object: &mut Value) {
    object["status"] = json!({ "phase": "Active" });
    let spec = child(object, "spec");
    let finalizers = spec
        .get("finalizers")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if !finalizers.iter().any(|f| f == "kubernetes") {
        let mut finalizers = finalizers;
        finalizers.push("kubernetes".into());
        spec["finalizers"] = finalizers.into();
    }
}

/// `spec.finalizers` change through `/finalize` only.
fn prepare_update(new: &mut Value, old: &Value) {
    prepare::status_update(new, old);
    carry(new, old, "spec");
}

/// `PUT /finalize`: takes the finalizers of the body and nothing else.
pub fn finalize(old: &Value, body: &Value) -> Value {
    let mut new = old.clone();
    let finalizers = body
        .pointer("/spec/finalizers")
        .cloned()
        .unwrap_or_else(|| json!([]));
    let spec = child(&mut new, "spec");
    if finalizers.as_array().is_none_or(Vec::is_empty) {
        super::value::remove(spec, "finalizers");
    } else {
        spec["finalizers"] = finalizers;
    }
    new
}

fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata(object, old, NameRule::Label, &mut errors);
    errors
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        meta::name(object).into(),
        text(object, "/status/phase").into(),
        age(object, now),
    ]
}
