//! `v1 Node`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::table_parts::{AGE, NAME, age, column, none_if_empty, wide};
use super::validation::{metadata, names, names::NameRule};
use super::value::{child, flag, list, remove, text};
use super::verbs::{GET_PATCH_UPDATE, STANDARD};
use super::{FieldError, Hooks, Kind, SelectableField, Subresource, prepare};
use crate::meta;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) static NODE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    categories: &[],
    namespaced: false,
    verbs: STANDARD,
    subresources: &[Subresource {
        name: "status",
        verbs: GET_PATCH_UPDATE,
        body: None,
    }],
    columns: &[
        NAME,
        column("Status", "The status of the node"),
        column("Roles", "The roles of the node"),
        AGE,
        column("Version", "Version of the node agent"),
        wide("Internal-IP", "First internal address"),
        wide("External-IP", "First external address"),
        wide("OS-Image", "Operating system"),
        wide("Kernel-Version", "Kernel"),
        wide("Container-Runtime", "What runs the pods"),
    ],
    selectable: &[SelectableField {
        name: "spec.unschedulable",
        get: |o| flag(o, "/spec/unschedulable").to_string(),
    }],
    view_of: None,
    hooks: Hooks {
        default: fill,
        prepare_create,
        prepare_update: |new, old| {
            prepare::status_update(new, old);
            if !list(old, "/spec/podCIDRs").is_empty() && list(new, "/spec/podCIDRs").is_empty() {
                for key in ["podCIDR", "podCIDRs"] {
                    super::value::carry(child(new, "spec"), &old["spec"], key);
                }
            }
        },
        validate,
        row,
    },
};

fn fill(object: &mut Value) {
    let capacity = object.pointer("/status/capacity").cloned();
    if let Some(capacity) = capacity.filter(|_| object.pointer("/status/allocatable").is_none()) {
        object["status"]["allocatable"] = capacity;
    }
    let spec = child(object, "spec");
    let cidr = text(spec, "/podCIDR").to_owned();
    // As upstream converts: who writes the single field means it.
    if !cidr.is_empty() && list(spec, "/podCIDRs").first() != Some(&json!(cidr)) {
        spec["podCIDRs"] = json!([cidr]);
    }
}

/// Unlike other kinds, a Node comes with its status: agents register both at once. It stays out of scheduling until
/// the node lifecycle controller has seen it ready.
fn prepare_create(object: &mut Value) {
    let spec = child(object, "spec");
    if list(spec, "/taints")
        .iter()
        .any(|t| text(t, "/key") == NOT_READY && text(t, "/effect") == "NoSchedule")
    {
        return;
    }
    let mut taints = list(spec, "/taints").to_vec();
    taints.push(json!({ "key": NOT_READY, "effect": "NoSchedule" }));
    spec["taints"] = taints.into();
    remove(spec, "configSource");
}

fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata(object, old, NameRule::Subdomain, &mut errors);
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (i, taint) in list(object, "/spec/taints").iter().enumerate() {
        let field = format!("spec.taints[{i}]");
        let (key, effect) = (text(taint, "/key"), text(taint, "/effect"));
        errors.extend(FieldError::invalid_by(
            format!("{field}.key"),
            key,
            names::qualified(key),
        ));
        let value = text(taint, "/value");
        errors.extend(FieldError::invalid_by(
            format!("{field}.value"),
            value,
            names::label_value(value),
        ));
        if effect.is_empty() {
            errors.push(FieldError::required(format!("{field}.effect"), ""));
        } else if !EFFECTS.contains(&effect) {
            errors.push(FieldError::not_supported(
                format!("{field}.effect"),
                effect,
                EFFECTS,
            ));
        }
        if seen.contains(&(key, effect)) {
            errors.push(FieldError::duplicate(&field, taint.clone()));
        }
        seen.push((key, effect));
    }
    pod_cidrs(object, old, &mut errors);
    errors
}

fn pod_cidrs(object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let cidrs = list(object, "/spec/podCIDRs");
    for (i, cidr) in cidrs.iter().enumerate() {
        let cidr = cidr.as_str().unwrap_or_default();
        if cidr.parse::<ipnetwork::IpNetwork>().is_err() || !cidr.contains('/') {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.push(FieldError::invalid(
                format!("spec.podCIDRs[{i}]"),
                cidr,
                detail,
            ));
        }
    }
    let Some(old) = old else { return };
    let before = list(old, "/spec/podCIDRs");
    if !before.is_empty() && before != cidrs {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(FieldError::forbidden("spec.podCIDRs", detail));
    }
    let (before, after) = (
        text(old, "/spec/providerID"),
        text(object, "/spec/providerID"),
    );
    if !before.is_empty() && before != after {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.push(FieldError::forbidden("spec.providerID", detail));
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let info = |key: &str| text(object, &format!("/status/nodeInfo/{key}"));
    let or_unknown = |text: &str| {
        if text.is_empty() {
            "<unknown>".into()
        } else {
            Value::from(text)
        }
    };
    vec![
        meta::name(object).into(),
        status(object).into(),
        roles(object).into(),
        age(object, now),
        info("kubeletVersion").into(),
        address(object, "InternalIP").into(),
        address(object, "ExternalIP").into(),
        or_unknown(info("osImage")),
        or_unknown(info("kernelVersion")),
        or_unknown(info("containerRuntimeVersion")),
    ]
}

fn status(object: &Value) -> String {
    let ready = list(object, "/status/conditions")
        .iter()
        .find(|c| text(c, "/type") == "Ready");
    let word = match ready {
        Some(condition) if text(condition, "/status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if flag(object, "/spec/unschedulable") {
        format!("{word},SchedulingDisabled")
    } else {
        word.to_owned()
    }
}

fn roles(object: &Value) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in meta::labels(object).into_iter().flatten() {
        if let Some(role) = key
            .strip_prefix(ROLE_PREFIX)
            .filter(|role| !role.is_empty())
        {
            roles.push(role);
        } else if key == ROLE_LABEL {
            roles.extend(value.as_str().filter(|role| !role.is_empty()));
        }
    }
    roles.sort_unstable();
    roles.dedup();
    none_if_empty(roles.join(","))
}

fn address(object: &Value, kind: &str) -> String {
    let found = list(object, "/status/addresses")
        .iter()
        .find(|a| text(a, "/type") == kind);
    none_if_empty(
        found
            .map(|a| text(a, "/address").to_owned())
            .unwrap_or_default(),
    )
}
