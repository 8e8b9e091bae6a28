use serde_json::Value;

use super::super::value::{list, map};

const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// Quality of service class: how firmly the pod's resources are promised.
pub(super) fn class(spec: &Value) -> &'static str {
    let containers = || {
        ["/containers", "/initContainers"]
            .into_iter()
            .flat_map(|pointer| list(spec, pointer))
    };
    let amount = |container: &Value, kind: &str, name: &str| {
        map(container, &format!("/resources/{kind}"))
            .and_then(|m| m.get(name))
            .cloned()
    };
    let asks_anything = containers().any(|c| {
        ["requests", "limits"]
            .iter()
            .any(|kind| COMPUTE.iter().any(|name| amount(c, kind, name).is_some()))
    });
    if !asks_anything {
        return "BestEffort";
    }
    let all_bounded = containers().all(|c| {
        COMPUTE.iter().all(|name| {
            let limit = amount(c, "limits", name);
            limit.is_some() && amount(c, "requests", name) == limit
        })
    });
    if all_bounded {
        "Guaranteed"
    } else {
        "Burstable"
    }
}
