//! What every kind's create and update have in common.

use serde_json::Value;

use super::value::{carry, remove};
use crate::meta;

/// Fields of `metadata` that only the server writes.
const SYSTEM: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "managedFields",
    "selfLink",
];

/// For kinds without status and generation.
pub(super) fn plain_create(_object: &mut Value) {}

/// For kinds without status and generation.
pub(super) fn plain_update(new: &mut Value, old: &Value) {
    system_metadata(new, old);
}

/// For kinds whose status is written through `/status` only.
pub(super) fn status_update(new: &mut Value, old: &Value) {
    system_metadata(new, old);
    carry(new, old, "status");
}

/// For kinds that have a status and count generations.
pub(super) fn counted_create(object: &mut Value) {
    remove(object, "status");
    meta::set_generation(object, 1);
}

pub(super) fn counted_update(new: &mut Value, old: &Value) {
    status_update(new, old);
    if new.get("spec") != old.get("spec") {
        meta::set_generation(new, meta::generation(old) + 1);
    }
}

/// Through `/status`: everything but `status` and free metadata stays.
pub(super) fn through_status(new: &mut Value, old: &Value) {
    system_metadata(new, old);
    if let Some(references) = old.pointer("/metadata/ownerReferences") {
        meta::metadata_mut(new).insert("ownerReferences".to_owned(), references.clone());
    } else {
        meta::metadata_mut(new).remove("ownerReferences");
    }
    let keys = |object: &Value| {
        object
            .as_object()
            .map(|m| m.keys().cloned().collect())
            .unwrap_or_default()
    };
    let mut all: Vec<String> = keys(new);
    all.extend(keys(old));
    for key in all
        .iter()
        .filter(|key| !matches!(key.as_str(), "metadata" | "status"))
    {
        carry(new, old, key);
    }
}

fn system_metadata(new: &mut Value, old: &Value) {
    let metadata = meta::metadata_mut(new);
    for key in SYSTEM {
        match old.get("metadata").and_then(|m| m.get(key)) {
            Some(value) => metadata.insert((*key).to_owned(), value.clone()),
            None => metadata.remove(*key),
        };
    }
}
