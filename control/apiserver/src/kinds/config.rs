//! `v1 ConfigMap` and `v1 Secret`: data without behaviour.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::Value;

use super::table_parts::{AGE, NAME, age, column, number};
use super::validation::{metadata, names, names::NameRule};
use super::value::{child, default, flag, map, remove, text};
use super::verbs::STANDARD;
use super::{FieldError, Hooks, Kind, SelectableField, prepare};
use crate::meta;

/// Upstream's limit for the contents of either kind.
const MAX_SIZE: usize = 1024 * 1024;

pub(super) static CONFIG_MAP: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    categories: &[],
    namespaced: true,
    verbs: STANDARD,
    subresources: &[],
    columns: &[NAME, number("Data", "Number of entries"), AGE],
    selectable: &[],
    view_of: None,
    hooks: Hooks {
        default: |_| {},
        prepare_create: prepare::plain_create,
        prepare_update: prepare::plain_update,
        validate: validate_config_map,
        row: |object, now| {
            vec![
                meta::name(object).into(),
                entries(object).into(),
                age(object, now),
            ]
        },
    },
};

pub(super) static SECRET: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: STANDARD,
    subresources: &[],
    columns: &[
        NAME,
        column("Type", "How programs use the secret"),
        number("Data", "Number of entries"),
        AGE,
    ],
    selectable: &[SelectableField {
        name: "type",
        get: |o| text(o, "/type").to_owned(),
    }],
    view_of: None,
    hooks: Hooks {
        default: fill_secret,
        prepare_create: prepare::plain_create,
        prepare_update: prepare::plain_update,
        validate: validate_secret,
        row: secret_row,
    },
};

fn entries(object: &Value) -> usize {
    ["/data", "/binaryData"]
        .iter()
        .filter_map(|p| map(object, p))
        .map(serde_json::Map::len)
        .sum()
}

fn secret_row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        meta::name(object).into(),
        text(object, "/type").into(),
        entries(object).into(),
        age(object, now),
    ]
}

/// `stringData` is for writing only: it ends up in `data`.
fn fill_secret(object: &mut Value) {
    default(object, "type", "Opaque");
    if let Some(plain) = map(object, "/stringData").cloned() {
        let data = child(object, "data");
        for (key, value) in plain {
            data[key] = BASE64.encode(value.as_str().unwrap_or_default()).into();
        }
    }
    remove(object, "stringData");
}

fn validate_config_map(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata(object, old, NameRule::Subdomain, &mut errors);
    let mut size = keys(object, "data", &mut errors) + keys(object, "binaryData", &mut errors);
    for key in map(object, "/binaryData")
        .into_iter()
        .flat_map(|m| m.keys())
    {
        if map(object, "/data").is_some_and(|data| data.contains_key(key)) {
            let detail = "duplicate of key present in data";
            errors.push(FieldError::invalid(
                format!("data[{key}]"),
                key.as_str(),
                detail,
            ));
            size = 0;
        }
    }
    too_large(size, &mut errors);
    immutable(object, old, &["data", "binaryData"], &mut errors);
    errors
}

fn validate_secret(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata(object, old, NameRule::Subdomain, &mut errors);
    let size = keys(object, "data", &mut errors);
    // Encoded length over-states the contents by a third.
    too_large(size / 4 * 3, &mut errors);
    let required: &[&str] = match text(object, "/type") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in required {
        if !map(object, "/data").is_some_and(|data| data.contains_key(*key)) {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    }
    if let Some(old) = old
        && text(old, "/type") != text(object, "/type")
    {
        errors.push(FieldError::invalid(
            "type",
            text(object, "/type"),
            "field is immutable",
        ));
    }
    immutable(object, old, &["data"], &mut errors);
    errors
}

/// Checks the keys of one map and returns the size of its values.
fn keys(object: &Value, field: &str, errors: &mut Vec<FieldError>) -> usize {
    let mut size = 0;
    for (key, value) in map(object, &format!("/{field}")).into_iter().flatten() {
        errors.extend(FieldError::invalid_by(
            format!("{field}[{key}]"),
            key.as_str(),
            names::config_key(key),
        ));
        size += value.as_str().map_or(0, str::len);
    }
    size
}

fn too_large(size: usize, errors: &mut Vec<FieldError>) {
    if size > MAX_SIZE {
        errors.push(FieldError::too_long("", MAX_SIZE));
    }
}

fn immutable(object: &Value, old: Option<&Value>, fields: &[&str], errors: &mut Vec<FieldError>) {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    let Some(old) = old.filter(|old| flag(old, "/immutable")) else {
        return;
    };
    if !flag(object, "/immutable") {
        errors.push(FieldError::forbidden("immutable", DETAIL));
    }
    for field in fields
        .iter()
        .filter(|field| object.get(**field) != old.get(**field))
    {
        errors.push(FieldError::forbidden(*field, DETAIL));
    }
}
