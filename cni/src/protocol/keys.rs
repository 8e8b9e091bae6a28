//! Keys without regard to case. The runtimes are written in Go, whose JSON reader does not care: containerd sends
//! `HostPort`, podman and CRI-O `hostPort`.

use serde_json::{Map, Value};

/// The same value with every key of every object in lower case.
pub(super) fn lower(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let lowered: Map<_, _> = object
                .iter()
                .map(|(key, value)| (key.to_lowercase(), lower(value)))
                .collect();
            lowered.into()
        }
        Value::Array(list) => list.iter().map(lower).collect(),
        other => other.clone(),
    }
}
