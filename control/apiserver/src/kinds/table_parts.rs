//! Cells and columns that several kinds print.

use jiff::Timestamp;
use serde_json::Value;

use super::Column;
use super::value::{list, map, text};
use crate::{meta, table};

pub(super) const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name must be unique within a namespace.",
    priority: 0,
};

pub(super) const AGE: Column = column("Age", "Time since the object was created.");

pub(super) const fn column(name: &'static str, description: &'static str) -> Column {
    Column {
        name,
        kind: "string",
        format: "",
        description,
        priority: 0,
    }
}

/// Shown with `-o wide` only.
pub(super) const fn wide(name: &'static str, description: &'static str) -> Column {
    Column {
        name,
        kind: "string",
        format: "",
        description,
        priority: 1,
    }
}

pub(super) const fn number(name: &'static str, description: &'static str) -> Column {
    Column {
        name,
        kind: "integer",
        format: "",
        description,
        priority: 0,
    }
}

pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    table::age(meta::creation_timestamp(object), now).into()
}

/// `a=b,c=d` of a map of labels; `<none>` when empty.
pub(super) fn labels(object: &Value, pointer: &str) -> String {
    let pairs: Vec<String> = map(object, pointer)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    none_if_empty(pairs.join(","))
}

/// A `LabelSelector` as `kubectl -l` would take it.
pub(super) fn selector(object: &Value, pointer: &str) -> String {
    let mut parts: Vec<String> = map(object, &format!("{pointer}/matchLabels"))
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for expression in list(object, &format!("{pointer}/matchExpressions")) {
        let key = text(expression, "/key");
        let values: Vec<&str> = list(expression, "/values")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        parts.push(match text(expression, "/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    none_if_empty(parts.join(","))
}

/// Names and images of a pod template's containers.
pub(super) fn containers(object: &Value, pointer: &str) -> (String, String) {
    let join = |key| {
        let texts: Vec<&str> = list(object, pointer).iter().map(|c| text(c, key)).collect();
        texts.join(",")
    };
    (join("/name"), join("/image"))
}

pub(super) fn none_if_empty(text: String) -> String {
    if text.is_empty() {
        "<none>".to_owned()
    } else {
        text
    }
}
