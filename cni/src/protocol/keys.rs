//! Keys without regard to case. The runtimes are written in Go, whose JSON reader does not care: containerd sends
//! `HostPort`, podman and CRI-O `hostPort`. For it, `null` is as good as nothing, too, and so is an empty text for an address:
//! containerd sends ranges with `"RangeEnd": ""`.

use std::fmt::Display;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};
use serde_json::{Map, Value};

/// The same value with every key of every object in lower case, and without those that have no value.
pub(super) fn lower(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let lowered: Map<_, _> = object
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.to_lowercase(), lower(value)))
                .collect();
            lowered.into()
        }
        Value::Array(list) => list.iter().map(lower).collect(),
        other => other.clone(),
    }
}

/// Of an object, by a key of any case; the exact one comes first. `null` is nothing.
pub(super) fn find<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    let any_case = || object.iter().find(|(k, _)| k.eq_ignore_ascii_case(key));
    let found = object
        .get(key)
        .or_else(|| any_case().map(|(_, value)| value));
    found.filter(|value| !value.is_null())
}

/// An address of any kind, or none where the text is empty.
pub(super) fn unless_empty<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(de::Error::custom),
    }
}
