use serde_json::Value;

use super::super::FieldError;
use super::names::{self, NameRule};
use super::selectors::label_map;
use crate::meta;

/// Keys and values of all annotations together.
const ANNOTATIONS_MAX: usize = 256 * 1024;
/// Finalizers that need no domain.
const STANDARD_FINALIZERS: &[&str] = &["kubernetes", "orphan", "foregroundDeletion"];

/// `ValidateObjectMeta` and `ValidateObjectMetaUpdate`.
pub(crate) fn metadata(
    object: &Value,
    old: Option<&Value>,
    rule: NameRule,
    errors: &mut Vec<FieldError>,
) {
    let prefix = meta::generate_name(object);
    if !prefix.is_empty() {
        // A prefix may end in a dash: judged as it will look with a suffix.
        let likely = format!("{}x", prefix.trim_end_matches('-'));
        let complaints = rule.check(&likely);
        errors.extend(FieldError::invalid_by(
            "metadata.generateName",
            prefix,
            complaints,
        ));
    }
    let name = meta::name(object);
    if name.is_empty() {
        errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else {
        errors.extend(FieldError::invalid_by(
            "metadata.name",
            name,
            rule.check(name),
        ));
    }
    label_map(
        object.pointer("/metadata/labels"),
        "metadata.labels",
        errors,
    );
    annotations(object, errors);
    owners(object, errors);
    finalizers(object, old, errors);
}

fn annotations(object: &Value, errors: &mut Vec<FieldError>) {
    let annotations = object
        .pointer("/metadata/annotations")
        .and_then(Value::as_object);
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        errors.extend(FieldError::invalid_by(
            "metadata.annotations",
            key.as_str(),
            names::qualified(&key.to_ascii_lowercase()),
        ));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(
            "metadata.annotations",
            ANNOTATIONS_MAX,
        ));
    }
}

fn owners(object: &Value, errors: &mut Vec<FieldError>) {
    const FIELD: &str = "metadata.ownerReferences";
    let mut controller = None;
    for owner in meta::owner_references(object) {
        let parts = [
            ("apiVersion", owner.api_version),
            ("kind", owner.kind),
            ("name", owner.name),
            ("uid", owner.uid),
        ];
        for (key, _) in parts.iter().filter(|(_, text)| text.is_empty()) {
            errors.push(FieldError::invalid(
                format!("{FIELD}.{key}"),
                "",
                "must not be empty",
            ));
        }
        if !owner.controller {
            continue;
        }
        if let Some(first) = controller.replace(owner.name) {
            let detail = format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                owner.name
            );
            errors.push(FieldError::invalid(FIELD, owner.name, detail));
        }
    }
}

fn finalizers(object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    const FIELD: &str = "metadata.finalizers";
    for (i, finalizer) in meta::finalizers(object).enumerate() {
        errors.extend(FieldError::invalid_by(
            FIELD,
            finalizer,
            names::qualified(finalizer),
        ));
        if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(
                format!("{FIELD}[{i}]"),
                finalizer,
                detail,
            ));
        }
    }
    let Some(old) = old.filter(|old| meta::is_terminating(old)) else {
        return;
    };
    let added: Vec<String> = meta::finalizers(object)
        .filter(|finalizer| !meta::finalizers(old).any(|f| f == *finalizer))
        .map(|finalizer| format!("\"{finalizer}\""))
        .collect();
    if !added.is_empty() {
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            added.join(", ")
        );
        errors.push(FieldError::forbidden(FIELD, detail));
    }
}
